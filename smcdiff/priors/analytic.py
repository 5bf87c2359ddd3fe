"""Gaussian and Gaussian-mixture priors, for which every quantity of a diffusion is exact.

With x_0 ~ sum_k w_k N(mu_k, S_k) and S_k = U_k diag(v_k) U_k', the forward marginal is

    p_t = sum_k w_k N(alpha mu_k, alpha^2 S_k + sigma^2 I),

x_0 given x_t is a mixture with responsibilities r_k(x_t), means and covariances

    m_k = mu_k + U_k (alpha v_k / (alpha^2 v_k + sigma^2)) U_k' (x_t - alpha mu_k),
    C_k = U_k diag(v_k sigma^2 / (alpha^2 v_k + sigma^2)) U_k',

and x_s given x_t is that mixture pushed through the bridge of `smcdiff.kernels`. Eigenvalues are
taken once, at construction; all the rest is diagonal. A factor analyser, S_k = W_k W_k' + psi_k I
(`GaussianMixture.of_factors`), needs its q leading eigenvectors only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion import kernels, schedules
from smcdiff.diffusion.laws.mixture import Transition
from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.errors import InputError
from smcdiff.priors.base import DiffusionDistribution
from smcdiff.priors.spectrum import Spectrum, is_concrete, spectrum_of

_FEW_COMPONENTS = 128
"""Up to here a table of the distances between all means costs less than one a particle."""


class AnalyticPrior(DiffusionDistribution):
    """What `Gaussian` and `GaussianMixture` share."""

    pytree_data_fields = ("log_weights", "means", "eigenvalues", "basis", "rest")
    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    eigenvalues: Float[Array, "#k q"]
    basis: Float[Array, "k d q"] | None
    rest: Float[Array, "#k 1"]

    def _setup(self, log_weights, means, spectrum: Spectrum, schedule: Schedule | None):
        self.log_weights = log_weights
        self.means = means
        self.eigenvalues, self.basis, self.rest = spectrum
        name = type(self).__name__
        if is_concrete(means, log_weights) and not np.all(np.isfinite(means)):
            raise InputError(f"{name}: the means have NaN or infinite entries")
        for variances in (self.eigenvalues, self.rest):
            if not is_concrete(variances):
                continue
            values = np.asarray(variances)
            if not np.all((values > 0) & np.isfinite(values)):
                raise InputError(
                    f"{name}: a covariance is not positive definite; every variance must be > 0,"
                    " and finite"
                )
        if schedule is None:
            schedule = self._fitting_schedule()
        super().__init__(schedule, means.shape[1:])

    def _fitting_schedule(self) -> Schedule:
        """An OU schedule from where the components merge to where the finest scale is resolved."""
        centred = self.means - jnp.exp(self.log_weights) @ self.means
        squared_radius = jnp.max(jnp.sum(centred**2, axis=-1) + jnp.max(self.eigenvalues, axis=-1))
        finest = jnp.min(self.eigenvalues)
        if self._low_rank:
            finest = jnp.minimum(finest, jnp.min(self.rest))
        base = schedules.OrnsteinUhlenbeck()
        return schedules.OrnsteinUhlenbeck(
            t_min=base.time(-jnp.log(finest) - 2.0 * jnp.log(0.05)),
            t_max=base.time(-jnp.log(squared_radius) + 2.0 * jnp.log(0.3)),
        )

    @property
    def _low_rank(self) -> bool:
        """Whether there are directions orthogonal to the basis."""
        return self.basis is not None and self.basis.shape[-1] < self.basis.shape[-2]

    def _with_variances(
        self, change: Callable[[Array], Array], scale: Array | float = 1.0
    ) -> Transition:
        """Components at ``scale means``, each variance v of theirs changed to ``change(v)``."""
        variances, rest = change(self.eigenvalues), change(self.rest)
        return Transition(self.log_weights, scale * self.means, variances, self.basis, rest=rest)

    def _inside(self, x: Float[Array, " d"], level: Level) -> Float[Array, "k q"]:
        """x_t in the basis of each component, from its mean: one matrix product a particle."""
        means = jnp.einsum("kde,kd->ke", self.basis, self.means)
        return jnp.einsum("kde,d->ke", self.basis, x) - level.alpha * means

    def _responsibilities(self, x: Float[Array, " d"], level: Level, inside) -> Float[Array, " k"]:
        """Log responsibilities of the components for x_t = x, (K,)."""
        if self.basis is None:
            return jax.nn.log_softmax(self._log_normals(x, level))
        distances, log_dets = self.marginal(level).mahalanobis(x, inside)
        return jax.nn.log_softmax(self.log_weights - 0.5 * (distances + log_dets))

    def _log_normals(self, x: Float[Array, " d"], level: Level) -> Float[Array, " k"]:
        """Log weights plus log densities at x_t = x but a constant, of components without a basis.

        By matrix products, where a (K, d) table a particle would cost ten times as much. Expanded
        about the origin the squares lose the digits of whatever is near x: that finds the component
        that x belongs to, and about its mean they are expanded once more.
        """
        variances = level.alpha**2 * self.eigenvalues + level.sigma**2
        log_priors = self.log_weights - 0.5 * jnp.sum(jnp.log(variances), axis=-1)
        precisions, centre = 1.0 / variances, jnp.mean(self.means, axis=0)
        means, x = level.alpha * (self.means - centre), x - level.alpha * centre
        scaled = means * precisions
        squares = jnp.sum(means * scaled, axis=-1)
        rough = precisions @ x**2 - 2.0 * scaled @ x + squares
        near = jnp.argmax(log_priors - 0.5 * jax.lax.stop_gradient(rough))
        offset = x - means[near]
        cross = precisions @ (offset * means[near]) - scaled @ offset
        if len(means) <= _FEW_COMPONENTS:  # a table that all particles share
            apart = jnp.sum((means[:, None] - means) ** 2 * precisions, axis=-1)[near]
        else:
            apart = jnp.sum((means[near] - means) ** 2 * precisions, axis=-1)
        return log_priors - 0.5 * (precisions @ offset**2 + 2.0 * cross + apart)

    @staticmethod
    def _gain(variances: Array, level: Level) -> Array:
        """Of prior variances v, the gain from x_t to m_k: alpha v / (alpha^2 v + sigma^2)."""
        return level.alpha * variances / (level.alpha**2 * variances + level.sigma**2)

    @staticmethod
    def _remaining(variances: Array, level: Level) -> Array:
        """Of prior variances v, those of x_0 given x_t: v sigma^2 / (alpha^2 v + sigma^2)."""
        return variances * level.sigma**2 / (level.alpha**2 * variances + level.sigma**2)

    def _gains(self, level: Level) -> tuple[Float[Array, "#k q"], Float[Array, "#k 1"]]:
        """The gains along the eigenvectors, and orthogonal to the basis (nothing is, if full)."""
        rest = self._gain(self.rest, level)
        return self._gain(self.eigenvalues, level), rest if self._low_rank else jnp.zeros_like(rest)

    def _evaluate(self, x: Float[Array, " d"], level: Level):
        """Log responsibilities, and x_t in the components' bases where they have some."""
        inside = None if self.basis is None else self._inside(x, level)
        return self._responsibilities(x, level, inside), inside

    def denoise(self, x: Float[Array, " d"], t: Float[Array, ""]) -> Float[Array, " d"]:
        """The exact denoiser E[x_0 given x_t = x]."""
        level = schedules.levels(self.schedule, t)
        log_weights, inside = self._evaluate(x, level)
        weights = jnp.exp(log_weights)
        gains, rest = self._gains(level)
        if inside is not None:
            moved = weights[:, None] * (gains - rest) * inside
            gains = jnp.broadcast_to(rest, (weights.shape[0], 1))
        slope = gains[0] if gains.shape[0] == 1 else weights @ gains
        mean = weights @ ((1.0 - level.alpha * gains) * self.means) + slope * x
        return mean if inside is None else mean + jnp.einsum("kde,ke->d", self.basis, moved)

    def marginal(self, level: Level) -> Transition:
        """The exact law p_t of x_t; its ``log_prob`` and ``sample`` are exact at every t."""
        return self._with_variances(lambda v: level.alpha**2 * v + level.sigma**2, level.alpha)

    def terminal(self) -> Transition:
        """The exact law of x_T: components do not merge exactly where alpha_T > 0."""
        return self.marginal(schedules.levels(self.schedule, jnp.asarray(self.schedule.t_max)))

    def reverse(self, x: Float[Array, " d"], t: Level, s: Level) -> Transition:
        """The exact law of x_s given x_t = x."""
        from_noise, from_signal, tau2 = kernels.bridge(t, s)
        log_weights, inside = self._evaluate(x, t)
        gains, rest = self._gains(t)
        offset = from_noise * x
        means, along = self.means, None
        if inside is not None:
            along = from_signal * (gains - rest) * inside
            if self._low_rank:
                means = means + rest * (x - t.alpha * means)
        elif gains.shape[0] == 1:  # the table of means stays one for all particles
            offset += from_signal * gains[0] * x
            means = (1.0 - t.alpha * gains) * means
        else:
            means = means + gains * (x - t.alpha * means)
        spread = self._with_variances(lambda v: tau2 + from_signal**2 * self._remaining(v, t))
        return dataclasses.replace(
            spread, log_weights=log_weights, means=from_signal * means, offset=offset, along=along
        )

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
        identity = jnp.eye(self.means.shape[1], dtype=self.means.dtype)
        return self.components().covariance_times(identity)

    def components(self) -> Transition:
        """The distribution itself, as a `Transition`."""
        return self._with_variances(lambda v: v)

    def component_probabilities(self, value: Float[Array, " d"]) -> Float[Array, " k"]:
        """p(component given x_0 = value), (K,); averaged over a posterior, its mode weights."""
        distances, log_dets = self.components().mahalanobis(value)
        return jax.nn.softmax(self.log_weights - 0.5 * (distances + log_dets))

    @property
    def variance(self) -> Float[Array, " d"]:
        """Variance of each coordinate, (d,)."""
        diagonals = self.eigenvalues
        if self.basis is not None:
            rest = self.rest if self._low_rank else 0.0
            diagonals = rest + jnp.einsum("kde,ke->kd", self.basis**2, self.eigenvalues - rest)
        return jnp.exp(self.log_weights) @ (diagonals + (self.means - self.mean) ** 2)

    def covariance_matrix(self) -> Float[Array, "d d"]:
        """Dense covariance of the whole distribution, (d, d)."""
        centred = self.means - self.mean
        weights = jnp.exp(self.log_weights)
        between = jnp.einsum("k,kd,ke->de", weights, centred, centred)
        return between + jnp.einsum("k,kde->de", weights, self.component_covariances())

    @partial(jax.jit, static_argnames="sample_shape")
    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Exact draws, ``sample_shape + (d,)``."""
        return self._sample_many(self.components().sample, key, sample_shape)

    @jax.jit
    def log_prob(self, value: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Exact log density."""
        return jnp.vectorize(self.components().log_prob, signature="(d)->()")(value)


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
        spectrum = spectrum_of(covariances, size)
        self._setup(jnp.zeros((1,), mean.dtype), mean[None], spectrum, schedule)

    def posterior_covariance_times(
        self, rows: Float[Array, "m d"], level: Level
    ) -> Float[Array, "m d"]:
        """Each row times the covariance of x_0 given x_t, which does not depend on x_t."""
        return self._with_variances(lambda v: self._remaining(v, level)).covariance_times(rows)[0]


class GaussianMixture(AnalyticPrior):
    """A mixture of Gaussians.

    Args:
        weights: (K,) non-negative weights; they are normalised.
        means: (K, d).
        covariances: a scalar, (K,) one variance a component, (K, d) variances or (K, d, d)
            matrices.
        schedule: noise schedule; None fits an Ornstein-Uhlenbeck one to the prior's scales.

    Raises:
        InputError: shapes that do not fit, negative weights, a covariance that is not positive
            definite, or (K, d) variances with K = d that may be meant as one matrix of all.
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
        if covariances.shape == (size, size) and size > 1 and _is_one_matrix(covariances):
            raise InputError(
                f"GaussianMixture: covariances of shape {covariances.shape} may be variances of"
                f" {num} components or one matrix of all; give {(num, size, size)}"
            )
        self._setup(_log_normalised(weights), means, spectrum_of(covariances, size), schedule)

    @classmethod
    def of_factors(
        cls, weights, means, factors, variances, schedule: Schedule | None = None
    ) -> GaussianMixture:
        """A mixture of factor analysers: component k has covariance W_k W_k' + v_k I.

        Everything costs q / d of what it does with dense (K, d, d) covariances.

        Args:
            weights: (K,) positive weights; they are normalised.
            means: (K, d).
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
        if (
            factors.ndim != 3
            or factors.shape[:2] != means.shape
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
        self._setup(_log_normalised(weights), means, spectrum, schedule)
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
    if is_concrete(weights) and not (np.all(weights >= 0) and 0 < weights.sum() < np.inf):
        raise InputError("GaussianMixture: weights must be non-negative and finite, and not all 0")
    return jnp.log(weights / jnp.sum(weights))
