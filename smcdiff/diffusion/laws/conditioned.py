"""A mixture given a Gaussian observation of it, of any linear map or of orthonormal directions."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._gaussian import LOG_2PI, each_times, inverse_lower, solve_component
from smcdiff.diffusion.laws.law import Law
from smcdiff.diffusion.laws.mixture import Mixture
from smcdiff.errors import InputError
from smcdiff.operators import LinearOperator
from smcdiff.operators.base import LARGEST_DENSE


class _Noise(NamedTuple):
    """Cholesky factor of a covariance, its inverse, and the log of its determinant's root."""

    factor: Float[Array, "m m"]
    inverse: Float[Array, "m m"]
    log_det: Float[Array, ""]


class Conditioned(Law):
    """The law q(x) ~ p(x) N(r; H (x - mean), Sigma); made by `Conditioned.of`.

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

    base: Mixture
    centre: Float[Array, " d"]
    matrix: Float[Array, "m d"]
    residual: Float[Array, " m"]
    noise: _Noise
    inverses: Float[Array, "#k m m"]
    log_weights: Float[Array, " k"]

    @classmethod
    def of(
        cls,
        base: Mixture,
        matrix: Float[Array, "m d"],
        residual: Float[Array, " m"],
        noise_covariance: Float[Array, "m m"],
    ) -> Conditioned:
        """From the observation.

        Args:
            base: p.
            matrix: H, (m, d).
            residual: r, (m,), the misfit at the mean of p.
            noise_covariance: Sigma, (m, m), positive definite.
        """
        centre = base.mean
        about_mean = dataclasses.replace(base, offset=base.offset - centre)
        misfits = residual[None] - about_mean.project_means(matrix)
        gains = base.covariance_times(matrix)  # (k or 1, m, d): H V_k
        joint = jnp.einsum("kmd,nd->kmn", gains, matrix) + noise_covariance[None]
        # One call for all, for the sake of CPUs; see `smcdiff.base._cpu`.
        factors = jnp.linalg.cholesky(jnp.concatenate([joint, noise_covariance[None]]))
        inverses = jax.vmap(inverse_lower)(factors)
        log_dets = jnp.sum(jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)), axis=1)
        noise = _Noise(factors[-1], inverses[-1], log_dets[-1])
        inverses, log_dets = inverses[:-1], log_dets[:-1]
        white = each_times(inverses, misfits)
        log_normals = -0.5 * jnp.sum(white**2, axis=1) - log_dets
        log_weights = base.log_weights + log_normals - 0.5 * residual.shape[0] * LOG_2PI
        return cls(base, centre, matrix, residual, noise, inverses, log_weights)

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

    @property
    def log_marginal(self) -> Float[Array, ""]:
        """Log density of the observation under p."""
        return logsumexp(self.log_weights)

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q at x."""
        left = self.noise.inverse @ (self.residual - self.matrix @ (x - self.centre))
        constant = self.noise.log_det + 0.5 * left.shape[0] * LOG_2PI
        return self.log_marginal + 0.5 * jnp.sum(left**2) + constant


class ConditionedAlong(Law):
    """An isotropic Gaussian, given noisy observations of orthonormal directions, one by one.

    Everything is diagonal in those directions: no matrix is made, and the directions may be those
    of a blur of a large image. Made by `conditioned_along`.

    Attributes:
        base: p = N(mean, v I).
        directions: operator from (d,) to (r,) with orthonormal rows V'.
        gains: g, (r,).
        residual: r, (r,), of the observation g V' (x - mean) + noise.
        variances: of the noise, (r,), positive.
    """

    base: Mixture
    directions: LinearOperator
    gains: Float[Array, " r"]
    residual: Float[Array, " r"]
    variances: Float[Array, " r"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw: of p, moved by the gain times its own misfit."""
        key_draw, key_noise = jax.random.split(key)
        draw, prior = self.base.draw(key_draw), self.base.mean_variance
        normals = jax.random.normal(key_noise, self.residual.shape, self.residual.dtype)
        noise = jnp.sqrt(self.variances) * normals
        seen = self.gains * self.directions(draw - self.base.mean)
        step = prior * self.gains / (prior * self.gains**2 + self.variances)
        return draw + self.directions.adjoint(step * (self.residual - seen - noise))

    @property
    def log_marginal(self) -> Float[Array, ""]:
        """Log density of the observation under p."""
        joint = self.base.mean_variance * self.gains**2 + self.variances
        return -0.5 * jnp.sum(self.residual**2 / joint + jnp.log(joint) + LOG_2PI)

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q at x."""
        left = self.residual - self.gains * self.directions(x - self.base.mean)
        terms = left**2 / self.variances + jnp.log(self.variances) + LOG_2PI
        return self.log_marginal + 0.5 * jnp.sum(terms)


def dense_rows(directions: LinearOperator) -> Float[Array, "r d"]:
    """Directions as a matrix, for laws whose covariances are not diagonal along them.

    Raises:
        InputError: more entries than a square of `smcdiff.operators.base.LARGEST_DENSE` has.
    """
    rows, size = math.prod(directions.out_shape), math.prod(directions.in_shape)
    if rows * size > LARGEST_DENSE**2:
        raise InputError(
            "a law of x_s that is not isotropic (a mixture's, say, or a Gaussian's of unequal"
            f" variances) cannot be conditioned along {rows} directions of {size} entries: that"
            " needs them as a matrix; use proposals.DDRM(), PiGDM() or KrylovMomentMatched()"
        )
    return directions.as_matrix()


def conditioned_along(
    base: Mixture,
    directions: LinearOperator,
    gains: Float[Array, " r"],
    residual: Float[Array, " r"],
    variances: Float[Array, " r"],
) -> Conditioned | ConditionedAlong:
    """The law q(x) ~ p(x) prod_i N(r_i; g_i V_i'(x - mean), variance_i).

    Args:
        base: p. Where it is an isotropic Gaussian no matrix is made.
        directions: operator from (d,) to (r,) with orthonormal rows V'.
        gains: g, (r,).
        residual: r, (r,), the misfit at the mean of p.
        variances: of the noise, (r,), positive.

    Raises:
        InputError: directions that would make too large a matrix.
    """
    if base.isotropic:
        return ConditionedAlong(base, directions, gains, residual, variances)
    matrix = gains[:, None] * dense_rows(directions)
    return Conditioned.of(base, matrix, residual, jnp.diag(variances))
