"""Gaussian and Gaussian-mixture priors, for which every quantity of a diffusion is exact.

With x_0 ~ sum_k w_k N(mu_k, S_k) and S_k = U_k diag(v_k) U_k', the forward marginal is

    p_t = sum_k w_k N(alpha mu_k, alpha^2 S_k + sigma^2 I),

x_0 given x_t is a mixture with responsibilities r_k(x_t), means and covariances

    m_k = mu_k + U_k (alpha v_k / (alpha^2 v_k + sigma^2)) U_k' (x_t - alpha mu_k),
    C_k = U_k diag(v_k sigma^2 / (alpha^2 v_k + sigma^2)) U_k',

and x_s given x_t is that mixture pushed through the bridge of `smcdiff.kernels`. Eigenvalues are
taken once, at construction; all the rest is diagonal.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff import kernels, schedules
from smcdiff.errors import InputError
from smcdiff.priors.base import DiffusionDistribution
from smcdiff.schedules import Level, Schedule
from smcdiff.transitions import Transition


def _is_concrete(*arrays) -> bool:
    return not any(isinstance(array, Tracer) for array in arrays)


def _eigen(covariances: Array, shape: tuple[int, int]) -> tuple[Array, Array | None]:
    """Eigenvalues (K, d), or (1, d) where components share them, and eigenvectors or None."""
    size = shape[1]
    if covariances.ndim == 3:
        return jnp.linalg.eigh(covariances)
    if covariances.ndim < 2:
        covariances = covariances.reshape(-1, 1)
    return jnp.broadcast_to(covariances, (covariances.shape[0], size)), None


class AnalyticPrior(DiffusionDistribution):
    """What `Gaussian` and `GaussianMixture` share."""

    pytree_data_fields = ("log_weights", "means", "eigenvalues", "basis")
    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    eigenvalues: Float[Array, "#k d"]
    basis: Float[Array, "k d d"] | None

    def _setup(self, log_weights, means, covariances, schedule: Schedule | None):
        self.log_weights = log_weights
        self.means = means
        self.eigenvalues, self.basis = _eigen(covariances, means.shape)
        name = type(self).__name__
        if _is_concrete(means, covariances) and not np.all(np.asarray(self.eigenvalues) > 0):
            raise InputError(
                f"{name}: a covariance is not positive definite; every variance must be > 0"
            )
        if schedule is None:
            schedule = self._fitting_schedule()
        super().__init__(schedule, means.shape[1:])

    def _fitting_schedule(self) -> Schedule:
        """An OU schedule from where the components merge to where the finest scale is resolved."""
        centred = self.means - jnp.exp(self.log_weights) @ self.means
        squared_radius = jnp.max(jnp.sum(centred**2, axis=-1) + jnp.max(self.eigenvalues, axis=-1))
        base = schedules.OrnsteinUhlenbeck()
        return schedules.OrnsteinUhlenbeck(
            t_min=base.time(-jnp.log(jnp.min(self.eigenvalues)) - 2.0 * jnp.log(0.05)),
            t_max=base.time(-jnp.log(squared_radius) + 2.0 * jnp.log(0.3)),
        )

    def _rotated(self, vectors: Float[Array, "k d"], inverse: bool = False) -> Array:
        if self.basis is None:
            return vectors
        equation = "kde,ke->kd" if inverse else "kde,kd->ke"
        return jnp.einsum(equation, self.basis, vectors)

    def _responsibilities(self, x: Float[Array, " d"], level: Level) -> Float[Array, " k"]:
        """Log responsibilities of the components for x_t = x, (K,)."""
        variances = level.alpha**2 * self.eigenvalues + level.sigma**2
        log_det = jnp.sum(jnp.log(variances), axis=-1)
        if self.basis is not None:
            centred = self._rotated(x - level.alpha * self.means)
            quadratic = jnp.sum(centred**2 / variances, axis=-1)
        else:
            # Matrix products instead of a (K, d) table a particle; centred, since the expanded
            # square loses the digits that the distance from the origin takes.
            centre = jnp.mean(self.means, axis=0)
            means, x = level.alpha * (self.means - centre), x - level.alpha * centre
            quadratic = (1.0 / variances) @ x**2 - 2.0 * (means / variances) @ x
            quadratic = quadratic + jnp.sum(means**2 / variances, axis=-1)
        return jax.nn.log_softmax(self.log_weights - 0.5 * (quadratic + log_det))

    def _gains(self, level: Level) -> tuple[Float[Array, "#k d"], Float[Array, "#k d"]]:
        """Eigenvalues of the gain from x_t to m_k, and of the covariance C_k."""
        variances = level.alpha**2 * self.eigenvalues + level.sigma**2
        gains = level.alpha * self.eigenvalues / variances
        return gains, self.eigenvalues * level.sigma**2 / variances

    def _component_means(self, x: Float[Array, " d"], level: Level, gains) -> Float[Array, "k d"]:
        centred = self._rotated(x - level.alpha * self.means)
        return self.means + self._rotated(gains * centred, inverse=True)

    def denoise(self, x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
        """The exact denoiser E[x_0 given x_t = x]."""
        level = schedules.levels(self.schedule, t)
        weights = jnp.exp(self._responsibilities(x, level))
        gains, _ = self._gains(level)
        if self.basis is not None:
            return weights @ self._component_means(x, level, gains)
        slope = gains[0] if gains.shape[0] == 1 else weights @ gains
        return weights @ ((1.0 - level.alpha * gains) * self.means) + slope * x

    def marginal(self, level: Level) -> Transition:
        """The exact law p_t of x_t; its ``log_prob`` and ``sample`` are exact at every t."""
        variances = level.alpha**2 * self.eigenvalues + level.sigma**2
        return Transition(self.log_weights, level.alpha * self.means, variances, self.basis)

    def terminal(self) -> Transition:
        """The exact law of x_T: components do not merge exactly where alpha_T > 0."""
        return self.marginal(schedules.levels(self.schedule, jnp.asarray(self.schedule.t_max)))

    def reverse(self, x: Float[Array, " d"], t: Level, s: Level) -> Transition:
        """The exact law of x_s given x_t = x."""
        from_noise, from_signal, tau2 = kernels.bridge(t, s)
        gains, variances = self._gains(t)
        if self.basis is None and gains.shape[0] == 1:
            offset = (from_noise + from_signal * gains[0]) * x
            means = from_signal * (1.0 - t.alpha * gains) * self.means
        else:
            offset = from_noise * x
            means = from_signal * self._component_means(x, t, gains)
        eigenvalues = tau2 + from_signal**2 * variances
        return Transition(self._responsibilities(x, t), means, eigenvalues, self.basis, offset)

    def default_kernel(self) -> kernels.Kernel:
        """The exact reverse kernel."""
        return kernels.Exact()

    def spread(self, level: Level) -> Float[Array, ""]:
        """Variance of x_0 given x_t, a coordinate, as if the prior were one isotropic Gaussian."""
        variance = jnp.mean(self.variance)
        return variance * level.sigma**2 / (level.alpha**2 * variance + level.sigma**2)

    @property
    def mean(self) -> Float[Array, " d"]:
        """Mean, (d,)."""
        return jnp.exp(self.log_weights) @ self.means

    def component_covariances(self) -> Float[Array, "k d d"]:
        """Dense covariances, (K, d, d)."""
        if self.basis is None:
            return jax.vmap(jnp.diag)(jnp.broadcast_to(self.eigenvalues, self.means.shape))
        return jnp.einsum("kde,ke,kfe->kdf", self.basis, self.eigenvalues, self.basis)

    @property
    def variance(self) -> Float[Array, " d"]:
        """Variance of each coordinate, (d,)."""
        diagonals = self.eigenvalues
        if self.basis is not None:
            diagonals = jnp.einsum("kde,ke->kd", self.basis**2, self.eigenvalues)
        return jnp.exp(self.log_weights) @ (diagonals + (self.means - self.mean) ** 2)

    def covariance_matrix(self) -> Float[Array, "d d"]:
        """Dense covariance of the whole distribution, (d, d)."""
        centred = self.means - self.mean
        weights = jnp.exp(self.log_weights)
        between = jnp.einsum("k,kd,ke->de", weights, centred, centred)
        return between + jnp.einsum("k,kde->de", weights, self.component_covariances())

    def _noise_free(self) -> Transition:
        zero, one = jnp.zeros(()), jnp.ones(())
        return self.marginal(Level(zero, one, zero, jnp.inf * one))

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Exact draws, ``sample_shape + (d,)``."""
        return self._sample_many(self._noise_free().sample, key, sample_shape)

    def log_prob(self, value: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Exact log density."""
        return jnp.vectorize(self._noise_free().log_prob, signature="(d)->()")(value)


class Gaussian(AnalyticPrior):
    """A Gaussian prior.

    Args:
        mean: (d,).
        covariance: scalar variance, (d,) variances or (d, d) covariance matrix.
        schedule: noise schedule; None fits an Ornstein-Uhlenbeck one to the prior's scales.

    Raises:
        InputError: shapes that do not fit, or a covariance that is not positive definite.
    """

    def __init__(self, mean, covariance, schedule: Schedule | None = None):
        """See the class."""
        mean, covariance = (jnp.asarray(a, jnp.result_type(float)) for a in (mean, covariance))
        if mean.ndim != 1:
            raise InputError(f"Gaussian: mean has shape {mean.shape}; it must be (d,)")
        size = mean.shape[0]
        if covariance.shape not in {(), (size,), (size, size)}:
            raise InputError(
                f"Gaussian: covariance has shape {covariance.shape} for a mean of shape {(size,)};"
                f" give a scalar, {(size,)} variances or a {(size, size)} matrix"
            )
        covariances = covariance if covariance.ndim == 0 else covariance[None]
        self._setup(jnp.zeros((1,), mean.dtype), mean[None], covariances, schedule)

    def posterior_covariance_times(
        self, rows: Float[Array, "m d"], level: Level
    ) -> Float[Array, "m d"]:
        """Each row times the covariance of x_0 given x_t, which does not depend on x_t."""
        noise = level.sigma**2
        variances = self.eigenvalues * noise / (level.alpha**2 * self.eigenvalues + noise)
        transition = Transition(self.log_weights, self.means, variances, self.basis)
        return transition.covariance_times(rows)[0]


class GaussianMixture(AnalyticPrior):
    """A mixture of Gaussians.

    Args:
        weights: (K,) positive weights; they are normalised.
        means: (K, d).
        covariances: a scalar, (K,) one variance a component, (K, d) variances or (K, d, d)
            matrices.
        schedule: noise schedule; None fits an Ornstein-Uhlenbeck one to the prior's scales.

    Raises:
        InputError: shapes that do not fit, negative weights, or a covariance that is not
            positive definite.
    """

    def __init__(self, weights, means, covariances, schedule: Schedule | None = None):
        """See the class."""
        dtype = jnp.result_type(float)
        weights, means, covariances = (jnp.asarray(a, dtype) for a in (weights, means, covariances))
        if means.ndim != 2 or weights.shape != means.shape[:1]:
            raise InputError(
                f"GaussianMixture: weights {weights.shape} and means {means.shape} do not fit;"
                " they must be (K,) and (K, d)"
            )
        num, size = means.shape
        if covariances.shape not in {(), (num,), (num, size), (num, size, size)}:
            raise InputError(
                f"GaussianMixture: covariances have shape {covariances.shape} for {num} components"
                f" of size {size}; give a scalar, {(num,)}, {(num, size)} or {(num, size, size)}"
            )
        if _is_concrete(weights) and not (np.all(weights >= 0) and np.isfinite(weights.sum())):
            raise InputError("GaussianMixture: weights must be non-negative and finite")
        self._setup(jnp.log(weights / jnp.sum(weights)), means, covariances, schedule)
