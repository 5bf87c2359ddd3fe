"""Gaussians with covariances "a multiple of the identity plus a few directions", and conditioning.

At image size a d x d covariance can neither be had nor stored; c I + U diag(e) U' with q
orthonormal columns can. In the singular coordinates of the whitened operator, A = diag(s) V', all
that a moment-matched sampler needs is then a diagonal plus q columns W = A U, and costs O(d q) by
Woodbury's identity and the determinant lemma.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._gaussian import LOG_2PI, inverse_lower
from smcdiff.diffusion.laws.coordinates import SingularCoordinates
from smcdiff.diffusion.laws.law import Law
from smcdiff.diffusion.laws.mixture import Mixture


class LowRank(NamedTuple):
    """The symmetric matrix base I + U diag(excess) U'.

    Attributes:
        base: scalar.
        directions: U', (q, d) orthonormal rows (or zero, where the excess is).
        excess: (q,).
    """

    base: Float[Array, ""]
    directions: Float[Array, "q d"]
    excess: Float[Array, " q"]

    def map(self, function) -> LowRank:
        """The matrix function: eigenvalues base and base + excess, each changed."""
        base = function(self.base)
        return LowRank(base, self.directions, function(self.base + self.excess) - base)

    def times(self, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        """The product with a vector."""
        return self.base * vector + (self.excess * (self.directions @ vector)) @ self.directions


class DiagonalPlus(NamedTuple):
    """The positive definite matrix diag(diagonal) + W diag(excess) W', excess >= 0.

    Attributes:
        diagonal: (r,), positive.
        columns: W diag(sqrt(excess)), (r, q).
        inverse_factor: inverse Cholesky factor of I + columns' diag(1 / diagonal) columns, (q, q).
        log_det: log determinant.
    """

    diagonal: Float[Array, " r"]
    columns: Float[Array, "r q"]
    inverse_factor: Float[Array, "q q"]
    log_det: Float[Array, ""]

    @classmethod
    def of(
        cls,
        diagonal: Float[Array, " r"],
        columns: Float[Array, "r q"],
        excess: Float[Array, " q"],
    ) -> DiagonalPlus:
        """From the diagonal, W and the excess."""
        columns = columns * jnp.sqrt(excess)[None]
        small = columns.T @ (columns / diagonal[:, None])
        factor = jnp.linalg.cholesky(small + jnp.eye(small.shape[0], dtype=small.dtype))
        log_det = jnp.sum(jnp.log(diagonal)) + 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        return cls(diagonal, columns, inverse_lower(factor), log_det)

    def solve(self, vector: Float[Array, " r"]) -> Float[Array, " r"]:
        """The product of the inverse with a vector."""
        scaled = vector / self.diagonal
        small = self.inverse_factor.T @ (self.inverse_factor @ (self.columns.T @ scaled))
        return scaled - (self.columns @ small) / self.diagonal

    def log_kernel(self, residual: Float[Array, " r"]) -> Float[Array, ""]:
        """Log of exp(-r' M^-1 r / 2) / sqrt(det M)."""
        return -0.5 * (residual @ self.solve(residual) + self.log_det)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " r"]:
        """A draw of N(0, M)."""
        key_diagonal, key_columns = jax.random.split(key)
        rank, dtype = self.columns.shape[1], self.diagonal.dtype
        noise = jax.random.normal(key_diagonal, self.diagonal.shape, dtype)
        return jnp.sqrt(self.diagonal) * noise + self.columns @ jax.random.normal(
            key_columns, (rank,), dtype
        )


class LowRankConditioned(Law):
    """The law q(x) ~ g(x) N(r; A G (x - mean), Sigma), and the law p that it replaces.

    g has the means and weights of p and one covariance V for all components: where p is isotropic
    it is p. V and G are low-rank in the same directions, Sigma is I + A F A' with F low-rank in
    them too.

    Attributes:
        base: p.
        covariance: V.
        slope: G.
        residual: r in singular coordinates, (r,).
        misfits: r - A G (mean_k - mean) of the components, (K, r).
        log_weights: (K,) log weights of the components of q, not normalised.
        noise: Sigma.
        joint: A G V G A' + Sigma.
        system: the singular coordinates.
    """

    base: Mixture
    covariance: LowRank
    slope: LowRank
    residual: Float[Array, " r"]
    misfits: Float[Array, "k r"]
    log_weights: Float[Array, " k"]
    noise: DiagonalPlus
    joint: DiagonalPlus
    system: SingularCoordinates

    @classmethod
    def of(
        cls,
        base: Mixture,
        covariance: LowRank,
        slope: LowRank,
        spread: LowRank,
        residual: Float[Array, " r"],
        system: SingularCoordinates,
        columns: Float[Array, "r q"],
    ) -> LowRankConditioned:
        """From p, V, G, F, r, the singular coordinates and ``columns`` = A U."""
        squares = system.values**2
        seen = combine(lambda v, g: g**2 * v, covariance, slope)
        total = combine(jnp.add, spread, seen)
        # One call for both, for the sake of CPUs; see `smcdiff.base._cpu`.
        both = jax.vmap(DiagonalPlus.of, in_axes=(0, None, 0))(
            1.0 + jnp.stack([spread.base, total.base])[:, None] * squares[None],
            columns,
            jnp.maximum(jnp.stack([spread.excess, total.excess]), 0.0),
        )
        noise, joint = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in (0, 1))
        offsets = base.component_means - base.mean[None]
        misfits = residual[None] - jax.vmap(lambda u: system.project(slope.times(u)))(offsets)
        log_weights = base.log_weights + jax.vmap(joint.log_kernel)(misfits)
        return cls(base, covariance, slope, residual, misfits, log_weights, noise, joint, system)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw, by Matheron's rule."""
        key_pick, key_draw, key_noise = jax.random.split(key, 3)
        index = jax.random.categorical(key_pick, self.log_weights)
        mean = self.base.component_means[index]
        normals = jax.random.normal(key_draw, mean.shape, mean.dtype)
        step = self.covariance.map(jnp.sqrt).times(normals)
        seen = self.system.project(self.slope.times(step))
        misfit = self.misfits[index] - seen - self.noise.sample(key_noise)
        pulled = self.system.adjoint(self.joint.solve(misfit))
        return mean + step + self.covariance.times(self.slope.times(pulled))

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q at x."""
        step = x - self.base.mean
        left = self.residual - self.system.project(self.slope.times(step))
        change = logsumexp(self.log_weights) - self.noise.log_kernel(left)
        if self.base.isotropic:
            return change
        return self.base.log_prob(x) - self._log_g(x) + change

    def _log_g(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log g at x."""
        within, directions = self.covariance.base, self.covariance.directions
        along = within + self.covariance.excess
        centred = x[None] - self.base.component_means
        inside = centred @ directions.T
        outside = centred - inside @ directions
        quadratics = jnp.sum(outside**2, axis=1) / within
        quadratics += jnp.sum(inside**2 / along[None], axis=1)
        log_det = jnp.sum(jnp.log(along)) + (x.shape[0] - along.shape[0]) * jnp.log(within)
        constant = log_det + x.shape[0] * LOG_2PI
        return logsumexp(self.base.log_weights - 0.5 * quadratics) - 0.5 * constant


def combine(function, first: LowRank, second: LowRank) -> LowRank:
    """A function of the eigenvalues of two matrices that share their directions."""
    base = function(first.base, second.base)
    whole = function(first.base + first.excess, second.base + second.excess)
    return LowRank(base, first.directions, whole - base)
