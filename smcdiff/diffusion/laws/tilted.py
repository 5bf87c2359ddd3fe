"""Exponential tilts of a mixture: the draw of twisted diffusion sampling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.laws.law import Law
from smcdiff.diffusion.laws.mixture import Mixture


class Tilted(Law):
    """The law q(x) ~ p(x) exp(g.x), again a mixture; made by `Tilted.of`.

    For one Gaussian N(mu, V) this is the shift of its mean by V g.

    Attributes:
        base: p.
        gradient: g, (d,).
        rotated: g in the bases of the components, (K, q), where they have some.
        origin: any point, (d,).
        log_weights: (K,) log weights of the components of q, not normalised: their sum is the mean
            of exp(g.(x - origin)) under p.
    """

    base: Mixture
    gradient: Float[Array, " d"]
    rotated: Float[Array, "k q"] | None
    origin: Float[Array, " d"]
    log_weights: Float[Array, " k"]

    @classmethod
    def of(
        cls,
        base: Mixture,
        gradient: Float[Array, " d"],
        room: Float[Array, ""] | float = jnp.inf,
    ) -> Tilted:
        """The tilt by s g with s = min(1, room / g'Vg).

        Args:
            base: p.
            gradient: g, (d,).
            room: how far the function whose gradient g is lies below its largest value. A longer
                shift overshoots and may diverge from level to level; this one is Polyak's step,
                which never leads away from the maximum of a concave function.
        """
        rotated = None if base.basis is None else jnp.einsum("kde,d->ke", base.basis, gradient)
        within = base.variance_along(gradient, rotated)
        gain = within[0] if within.shape[0] == 1 else jnp.exp(base.log_weights) @ within
        step = jnp.where(gain > room, room / jnp.where(gain > 0.0, gain, 1.0), 1.0)
        gradient = step * gradient
        # Cumulants of g.(x - origin) of the components.
        origin = base.offset + base.means[0]
        cumulants = (base.means - base.means[:1]) @ gradient + 0.5 * step**2 * within
        if rotated is not None:
            rotated = step * rotated
            if base.along is not None:
                cumulants += jnp.sum(base.along * rotated, axis=-1)
        return cls(base, gradient, rotated, origin, base.log_weights + cumulants)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        key_pick, key_draw = jax.random.split(key)
        index = self.base.pick_index(key_pick, self.log_weights)
        rotated = None if self.rotated is None else self.rotated[index][None]
        return self.base.component(index).translated(self.gradient, rotated).draw(key_draw)

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q at x."""
        return logsumexp(self.log_weights) - self.gradient @ (x - self.origin)
