"""Another Gaussian in the place of the reverse kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smcdiff.base._gaussian import LOG_2PI
from smcdiff.base.module import Module
from smcdiff.diffusion.laws.law import Law
from smcdiff.diffusion.laws.mixture import Mixture
from smcdiff.operators import LinearOperator


class AlongDirections(Module):
    """A Gaussian with a variance of its own in each of some orthonormal directions.

    Attributes:
        mean: (d,).
        directions: operator from (d,) to (r,) with orthonormal rows.
        scales: (r,) standard deviations of the directions.
        outer_scale: standard deviation of everything orthogonal to them.
    """

    mean: Float[Array, " d"]
    directions: LinearOperator
    scales: Float[Array, " r"]
    outer_scale: Float[Array, ""]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        inside = (self.scales - self.outer_scale) * self.directions(noise)
        return self.mean + self.outer_scale * noise + self.directions.adjoint(inside)

    def log_prob(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log density; infinite or NaN where a scale is zero."""
        centred = x - self.mean
        inside = self.directions(centred)
        total = jnp.sum((inside / self.scales) ** 2 + 2.0 * jnp.log(self.scales))
        outer_rank = x.shape[0] - inside.shape[0]
        if outer_rank:  # 0 log 0 would be NaN where every direction is one of them
            outside = centred - self.directions.adjoint(inside)
            total += jnp.sum((outside / self.outer_scale) ** 2)
            total += 2.0 * outer_rank * jnp.log(self.outer_scale)
        return -0.5 * (total + x.shape[0] * LOG_2PI)


class Substituted(Law):
    """Draws of q in the place of p, weighed by the two densities.

    Attributes:
        base: p.
        draw: q.
        keep: where true the law is p itself.
    """

    base: Mixture
    draw: AlongDirections
    keep: Bool[Array, ""]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        return jnp.where(self.keep, self.base.sample(key), self.draw.sample(key))

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q at x."""
        return jnp.where(self.keep, 0.0, self.base.log_prob(x) - self.draw.log_prob(x))
