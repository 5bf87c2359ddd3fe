"""The analytic priors that users make: one Gaussian, and mixtures of Gaussians.

An event may have any shape; inside it is flat, and a covariance matrix is that of flat events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.errors import InputError
from smcdiff.priors._spectrum import Spectrum, is_concrete, spectrum_of
from smcdiff.priors.analytic import AnalyticPrior


class Gaussian(AnalyticPrior):
    """A Gaussian prior.

    Args:
        mean: of the event's shape, (d,) or (h, w, c) for example; d is its number of entries.
        covariance: scalar variance, variances of the event's shape or (d,), or (d, d) covariance
            matrix of the flat event.
        schedule: noise schedule; None fits an Ornstein-Uhlenbeck one to the prior's scales.

    Raises:
        InputError: shapes that do not fit, or a covariance that is not positive definite.
    """

    def __init__(
        self,
        mean: ArrayLike | Sequence[Any],
        covariance: ArrayLike | Sequence[Any],
        schedule: Schedule | None = None,
    ):
        """See the class."""
        mean, covariance = (jnp.asarray(a, jnp.result_type(float)) for a in (mean, covariance))
        if mean.ndim < 1:
            raise InputError(f"Gaussian: mean has shape {mean.shape}; it must have an axis: (d,)")
        shape, size = mean.shape, mean.size
        if covariance.shape not in {(), shape, (size,), (size, size)}:
            raise InputError(
                f"Gaussian: covariance has shape {covariance.shape} for a mean of shape {shape};"
                f" give a scalar, {shape} variances or a {(size, size)} matrix"
            )
        if covariance.shape == shape:
            covariance = jnp.ravel(covariance)
        covariances = covariance if covariance.ndim == 0 else covariance[None]
        spectrum = spectrum_of(covariances)
        self._setup(jnp.zeros((1,), mean.dtype), mean.reshape(1, -1), spectrum, shape, schedule)

    def posterior_covariance_times(
        self, rows: Float[Array, "m d"], level: Level
    ) -> Float[Array, "m d"]:
        """Each row times the covariance of x_0 given x_t, which does not depend on x_t."""
        remaining = self.components.with_variances(lambda v: self._remaining(v, level))
        return remaining.covariance_times(rows)[0]


class GaussianMixture(AnalyticPrior):
    """A mixture of Gaussians.

    Args:
        weights: (K,) non-negative weights; they are normalised.
        means: (K, *event), (K, d) for example; d is the number of entries of an event.
        covariances: a scalar, (K,) one variance per component, variances of the means' shape or (K,
            d), or (K, d, d) matrices of flat events.
        schedule: noise schedule; None fits an Ornstein-Uhlenbeck one to the prior's scales.

    Raises:
        InputError: shapes that do not fit, negative weights, a covariance that is not positive
            definite, or (K, d) variances with K = d that may be meant as one matrix of all.
    """

    def __init__(
        self,
        weights: ArrayLike | Sequence[Any],
        means: ArrayLike | Sequence[Any],
        covariances: ArrayLike | Sequence[Any],
        schedule: Schedule | None = None,
    ):
        """See the class."""
        dtype = jnp.result_type(float)
        weights, means, covariances = (jnp.asarray(a, dtype) for a in (weights, means, covariances))
        if means.ndim < 2 or weights.shape != means.shape[:1]:
            raise InputError(
                f"GaussianMixture: weights {weights.shape} and means {means.shape} do not fit;"
                " they must be (K,) and (K, d)"
            )
        num, shape = means.shape[0], means.shape[1:]
        size = math.prod(shape)
        if covariances.shape not in {(), (num,), means.shape, (num, size), (num, size, size)}:
            raise InputError(
                f"GaussianMixture: covariances have shape {covariances.shape} for {num} components"
                f" of shape {shape}; give a scalar, {(num,)}, {means.shape} or {(num, size, size)}"
            )
        if covariances.shape == (size, size) and size > 1 and _is_one_matrix(covariances):
            raise InputError(
                f"GaussianMixture: covariances of shape {covariances.shape} may be variances of"
                f" {num} components or one matrix of all; give {(num, size, size)}"
            )
        if covariances.shape == means.shape:
            covariances = covariances.reshape(num, size)
        spectrum = spectrum_of(covariances)
        self._setup(_log_normalised(weights), means.reshape(num, size), spectrum, shape, schedule)

    @classmethod
    def of_factors(
        cls,
        weights: ArrayLike | Sequence[Any],
        means: ArrayLike | Sequence[Any],
        factors: ArrayLike | Sequence[Any],
        variances: ArrayLike | Sequence[Any],
        schedule: Schedule | None = None,
    ) -> GaussianMixture:
        """A mixture of factor analysers: component k has covariance W_k W_k' + v_k I.

        Everything costs q / d of what it does with dense (K, d, d) covariances.

        Args:
            weights: (K,) positive weights; they are normalised.
            means: (K, *event), of d entries per event.
            factors: W, (K, d, q) with q < d.
            variances: v, (K,) or a scalar, > 0.
            schedule: noise schedule; None fits an Ornstein-Uhlenbeck one to the prior's scales.

        Raises:
            InputError: shapes that do not fit, negative weights, or variances that are not
                positive.
        """
        dtype = jnp.result_type(float)
        arrays = (jnp.asarray(a, dtype) for a in (weights, means, factors, variances))
        weights, means, factors, variances = arrays
        num = means.shape[0]
        flat = means.reshape(num, -1)
        if (
            factors.ndim != 3
            or factors.shape[:2] != flat.shape
            or weights.shape != (num,)
            or variances.shape not in {(), (num,)}
            or not 0 < factors.shape[2] < factors.shape[1]
        ):
            raise InputError(
                f"GaussianMixture.of_factors: weights {weights.shape}, means {means.shape}, factors"
                f" {factors.shape} and variances {variances.shape} do not fit; they must be (K,),"
                " (K, d), (K, d, q) with q < d, and (K,) or a scalar"
            )
        rest = jnp.broadcast_to(variances, (num,))[:, None]
        basis, values, _ = jnp.linalg.svd(factors, full_matrices=False)
        self = cls.__new__(cls)
        spectrum = Spectrum(values**2 + rest, basis, rest)
        self._setup(_log_normalised(weights), flat, spectrum, means.shape[1:], schedule)
        return self


def _is_one_matrix(covariances: Float[Array, "d d"]) -> bool:
    """Whether variances of d components might be meant as a covariance matrix of all."""
    if not is_concrete(covariances):
        return False
    matrix = np.asarray(covariances)
    if not np.array_equal(matrix, matrix.T):
        return False
    values = np.linalg.eigvalsh(matrix)
    return bool(values[0] > 1e-6 * values[-1])  # equal variances everywhere are singular


def _log_normalised(weights: Float[Array, " k"]) -> Float[Array, " k"]:
    """Log weights of a mixture that sum to one."""
    if is_concrete(weights) and not (
        np.all(np.asarray(weights) >= 0) and 0 < weights.sum() < np.inf
    ):
        raise InputError("GaussianMixture: weights must be non-negative and finite, and not all 0")
    return jnp.log(weights / jnp.sum(weights))
