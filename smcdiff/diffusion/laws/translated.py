"""Translations of a mixture: the draw of the guided samplers."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.laws.law import Law
from smcdiff.diffusion.laws.mixture import Mixture


class Translated(Law):
    """The law q(x) = p(x - shift).

    Where p is a Dirac its translation has no ratio: NaN or infinite, but 0 where the shift is zero.

    Attributes:
        base: p.
        shift: (d,).
    """

    base: Mixture
    shift: Float[Array, " d"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """A draw of p, translated."""
        return self.base.sample(key) + self.shift

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q at x."""
        return jnp.where(jnp.any(self.shift != 0.0), self._log_ratio(x), 0.0)

    def _log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        base, shift = self.base, self.shift
        if base.means.shape[0] > 1:
            return base.log_prob(x) - base.log_prob(x - shift)
        middle = x - base.mean - 0.5 * shift
        if base.basis is None:
            return -jnp.sum(shift * middle / base.eigenvalues[0])
        inside, along = base.basis[0].T @ middle, base.basis[0].T @ shift
        log_ratio = -jnp.sum(along * inside / base.eigenvalues[0])
        if base.is_low_rank:
            outside = middle - base.basis[0] @ inside
            log_ratio -= jnp.sum(shift * outside / jnp.ravel(jnp.asarray(base.rest))[0])
        return log_ratio
