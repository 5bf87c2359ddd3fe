"""Laws that come of a `Transition` by a change: an exponential tilt, or an observation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.gaussian import LOG_2PI, solve_component
from smcdiff.base.module import Module

if TYPE_CHECKING:
    from smcdiff.diffusion.laws.mixture import Transition


class Change(Protocol):
    """A law q to draw x_s from, made of the reverse kernel p."""

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        ...

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q, at any x."""
        ...


class Noise(NamedTuple):
    """Cholesky factor of a covariance, its inverse, and the log of its determinant's root."""

    factor: Float[Array, "m m"]
    inverse: Float[Array, "m m"]
    log_det: Float[Array, ""]


class Tilted(Module):
    """The law q(x) ~ p(x) exp(g.x); see `Transition.tilted`.

    Attributes:
        base: p.
        gradient: g, (d,).
        rotated: g in the bases of the components, (K, q), where they have some.
        origin: any point, (d,).
        log_weights: (K,) log weights of the components of q, not normalised: their sum is the mean
            of exp(g.(x - origin)) under p.
    """

    base: Transition
    gradient: Float[Array, " d"]
    rotated: Float[Array, "k q"] | None
    origin: Float[Array, " d"]
    log_weights: Float[Array, " k"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        key_pick, key_draw = jax.random.split(key)
        index = self.base.pick_index(key_pick, self.log_weights)
        rotated = None if self.rotated is None else self.rotated[index][None]
        moved = self.base.component(index).translated(self.gradient, rotated)
        return moved.draw(key_draw)

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q at x."""
        return logsumexp(self.log_weights) - self.gradient @ (x - self.origin)


class Conditioned(Module):
    """The law q(x) ~ p(x) N(r; H (x - mean), Sigma); see `Transition.conditioned`.

    Attributes:
        base: p.
        centre: mean of p, (d,).
        matrix: H, (m, d).
        residual: r, (m,).
        noise: factors of Sigma.
        inverses: (K, m, m) inverse Cholesky factors of H V_k H' + Sigma; one where all components
            have the covariance V.
        log_weights: (K,) log weights of the components of q, not normalised.
    """

    base: Transition
    centre: Float[Array, " d"]
    matrix: Float[Array, "m d"]
    residual: Float[Array, " m"]
    noise: Noise
    inverses: Float[Array, "#k m m"]
    log_weights: Float[Array, " k"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw.

        It is Matheron's: a draw of p, moved by the gain times its own misfit, so no factor of the
        d x d conditional covariance is needed.
        """
        key_pick, key_draw, key_noise = jax.random.split(key, 3)
        index = self.base.pick_index(key_pick, self.log_weights)
        single = self.base.component(index)
        draw = single.draw(key_draw)
        normals = jax.random.normal(key_noise, self.residual.shape, self.residual.dtype)
        noise = self.noise.factor @ normals
        misfit = self.residual - self.matrix @ (draw - self.centre) - noise
        solved = solve_component(self.inverses, misfit, index)
        return draw + single.covariance_times(solved @ self.matrix)[0]

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q at x."""
        left = self.noise.inverse @ (self.residual - self.matrix @ (x - self.centre))
        constant = self.noise.log_det + 0.5 * left.shape[0] * LOG_2PI
        return logsumexp(self.log_weights) + 0.5 * jnp.sum(left**2) + constant
