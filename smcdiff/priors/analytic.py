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
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._numbers import Scalar
from smcdiff.diffusion import kernels, schedules
from smcdiff.diffusion.laws import Mixture
from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.errors import InputError
from smcdiff.priors._spectrum import Spectrum, is_concrete
from smcdiff.priors.base import Prior

_FEW_COMPONENTS = 128
"""Up to here a table of the distances between all means costs less than one per particle."""


class AnalyticPrior(Prior):
    """What `Gaussian` and `GaussianMixture` share.

    Attributes:
        components: the distribution of x_0 itself, on flat events.
    """

    components: Mixture
    has_exact_reverse: ClassVar[bool] = True
    has_exact_denoiser: ClassVar[bool] = True
    is_self_contained: ClassVar[bool] = True

    def _setup(
        self,
        log_weights: Float[Array, " k"],
        means: Float[Array, "k d"],
        spectrum: Spectrum,
        event_shape: tuple[int, ...],
        schedule: Schedule | None,
    ) -> None:
        name = type(self).__name__
        if is_concrete(means, log_weights) and not np.all(np.isfinite(means)):
            raise InputError(f"{name}: the means have NaN or infinite entries")
        for variances in (spectrum.eigenvalues, spectrum.rest):
            if not is_concrete(variances):
                continue
            values = np.asarray(variances)
            if not np.all((values > 0) & np.isfinite(values)):
                raise InputError(
                    f"{name}: a covariance is not positive definite; every variance must be > 0,"
                    " and finite"
                )
        self.components = Mixture(
            log_weights, means, spectrum.eigenvalues, spectrum.basis, rest=spectrum.rest
        )
        schedule = _fitting_schedule(self.components) if schedule is None else schedule
        super().__init__(schedule, event_shape)

    @property
    def log_weights(self) -> Float[Array, " k"]:
        """Log weights of the components, (K,)."""
        return self.components.log_weights

    @property
    def means(self) -> Float[Array, "k d"]:
        """Means of the components, (K, d), flat."""
        return self.components.means

    def _inside(self, x: Float[Array, " d"], level: Level) -> Float[Array, "k q"]:
        """x_t in the basis of each component, from its mean: one matrix product per particle."""
        means = jnp.einsum("kde,kd->ke", self.components.basis, self.means)
        return jnp.einsum("kde,d->ke", self.components.basis, x) - level.alpha * means

    def _responsibilities(
        self, x: Float[Array, " d"], level: Level, inside: Float[Array, "k q"] | None
    ) -> Float[Array, " k"]:
        """Log responsibilities of the components for x_t = x, (K,)."""
        if inside is None:
            return jax.nn.log_softmax(self._log_normals(x, level))
        distances, log_dets = self.marginal(level).mahalanobis(x, inside)
        return jax.nn.log_softmax(self.log_weights - 0.5 * (distances + log_dets))

    def _log_normals(self, x: Float[Array, " d"], level: Level) -> Float[Array, " k"]:
        """Log weights plus log densities at x_t = x but a constant, of components without a basis.

        By matrix products, where a (K, d) table per particle would cost ten times as much. Expanded
        about the origin the squares lose the digits of whatever is near x: that finds the component
        that x belongs to, and about its mean they are expanded once more.
        """
        means = self.means
        variances = level.alpha**2 * self.components.eigenvalues + level.sigma**2
        variances = jnp.broadcast_to(variances, (variances.shape[0], self.size))
        log_priors = self.log_weights - 0.5 * jnp.sum(jnp.log(variances), axis=-1)
        precisions, centre = 1.0 / variances, jnp.mean(means, axis=0)
        means, x = level.alpha * (means - centre[None]), x - level.alpha * centre
        scaled = means * precisions
        squares = jnp.sum(means * scaled, axis=-1)
        rough = precisions @ x**2 - 2.0 * scaled @ x + squares
        near = jnp.argmax(log_priors - 0.5 * jax.lax.stop_gradient(rough))
        offset = x - means[near]
        cross = precisions @ (offset * means[near]) - scaled @ offset
        if len(means) <= _FEW_COMPONENTS:  # a table that all particles share
            apart = (means[:, None] - means[None]) ** 2 * precisions[None]
            apart = jnp.sum(apart, axis=-1)[near]
        else:
            apart = jnp.sum((means[near][None] - means) ** 2 * precisions, axis=-1)
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
        rest = self._gain(jnp.asarray(self.components.rest), level)
        rest = rest if self.components.is_low_rank else jnp.zeros_like(rest)
        return self._gain(self.components.eigenvalues, level), rest

    def _evaluate(self, x: Float[Array, " d"], level: Level):
        """Log responsibilities, and x_t in the components' bases where they have some."""
        inside = None if self.components.basis is None else self._inside(x, level)
        return self._responsibilities(x, level, inside), inside

    def posterior_mean(self, x: Float[Array, "*event"], t: Scalar) -> Float[Array, "*event"]:
        """The exact denoiser E[x_0 given x_t = x]."""
        return self.mean_given(jnp.ravel(x), self.schedule.level(t)).reshape(x.shape)

    def mean_given(self, x: Float[Array, " d"], level: Level) -> Float[Array, " d"]:
        """E[x_0 given x_t = x], flat, at a level of any schedule."""
        log_weights, inside = self._evaluate(x, level)
        weights = jnp.exp(log_weights)
        gains, rest = self._gains(level)
        if inside is not None:
            moved = weights[:, None] * (gains - rest) * inside
            gains = jnp.broadcast_to(rest, (weights.shape[0], 1))
        slope = gains[0] if gains.shape[0] == 1 else weights @ gains
        mean = weights @ ((1.0 - level.alpha * gains) * self.means) + slope * x
        if inside is None:
            return mean
        return mean + jnp.einsum("kde,ke->d", self.components.basis, moved)

    def marginal(self, level: Level) -> Mixture:
        """The exact law p_t of x_t; its ``log_prob`` and ``sample`` are exact at every t."""
        return self.components.with_variances(
            lambda v: level.alpha**2 * v + level.sigma**2, level.alpha
        )

    def terminal(self) -> Mixture:
        """The exact law of x_T: components do not merge exactly where alpha_T > 0."""
        return self.marginal(self.schedule.noisiest)

    def reverse(self, x: Float[Array, " d"], t: Level, s: Level) -> Mixture:
        """The exact law of x_s given x_t = x."""
        from_noise, from_signal, tau2 = kernels.bridge(t, s)
        log_weights, inside = self._evaluate(x, t)
        gains, rest = self._gains(t)
        offset = from_noise * x
        means, along = self.means, None
        if inside is not None:
            along = from_signal * (gains - rest) * inside
            if self.components.is_low_rank:
                means = means + rest * (x[None] - t.alpha * means)
        elif gains.shape[0] == 1:  # the table of means stays one for all particles
            offset += from_signal * gains[0] * x
            means = (1.0 - t.alpha * gains) * means
        else:
            means = means + gains * (x[None] - t.alpha * means)
        spread = self.components.with_variances(
            lambda v: tau2 + from_signal**2 * self._remaining(v, t)
        )
        return dataclasses.replace(
            spread, log_weights=log_weights, means=from_signal * means, offset=offset, along=along
        )

    def default_kernel(self) -> kernels.Kernel:
        """The exact reverse kernel."""
        return kernels.Exact()

    def spread(self, level: Level) -> Float[Array, ""]:
        """Variance of x_0 given x_t per coordinate, as if the prior were an isotropic Gaussian."""
        return self._remaining(jnp.mean(self.variance), level)

    @property
    def centre(self) -> Float[Array, "*event"]:
        """The mean."""
        return self.mean

    @property
    def mean(self) -> Float[Array, "*event"]:
        """Mean, of the event's shape."""
        return self.components.mean.reshape(self.event_shape)

    def component_covariances(self) -> Float[Array, "k d d"]:
        """Dense covariances of flat events, (K, d, d)."""
        components = self.components
        if components.basis is None:
            return jax.vmap(jnp.diag)(jnp.broadcast_to(components.eigenvalues, self.means.shape))
        return components.covariance_times(jnp.eye(self.size, dtype=self.means.dtype))

    def component_probabilities(self, value: Float[Array, "*event"]) -> Float[Array, " k"]:
        """p(component given x_0 = value), (K,); averaged over a posterior, its mode weights."""
        distances, log_dets = self.components.mahalanobis(jnp.ravel(value))
        return jax.nn.softmax(self.log_weights - 0.5 * (distances + log_dets))

    @property
    def variance(self) -> Float[Array, "*event"]:
        """Variance of each entry, of the event's shape."""
        components = self.components
        diagonals = components.eigenvalues
        if components.basis is not None:
            rest = components.rest if components.is_low_rank else 0.0
            inside = components.eigenvalues - rest
            diagonals = rest + jnp.einsum("kde,ke->kd", components.basis**2, inside)
        centred = self.means - components.mean[None]
        variances = jnp.exp(self.log_weights) @ (diagonals + centred**2)
        return variances.reshape(self.event_shape)

    def covariance_matrix(self) -> Float[Array, "d d"]:
        """Dense covariance of the whole distribution, of flat events, (d, d)."""
        centred = self.means - self.components.mean[None]
        weights = jnp.exp(self.log_weights)
        between = jnp.einsum("k,kd,ke->de", weights, centred, centred)
        return between + jnp.einsum("k,kde->de", weights, self.component_covariances())

    def rough_draws(self, key: PRNGKeyArray, count: int) -> Float[Array, " count *event"]:
        """Exact draws."""
        return self.sample(key, (count,))

    @partial(jax.jit, static_argnames="sample_shape")
    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Exact draws, ``sample_shape + event_shape``."""
        return self._sample_many(self.components.sample, key, sample_shape)

    @jax.jit
    def log_prob(self, value: Float[Array, "*batch_event"]) -> Float[Array, "*batch"]:
        """Exact log density."""
        batch = value.shape[: value.ndim - len(self.event_shape)]
        flat = value.reshape(*batch, self.size)
        return jnp.vectorize(self.components.log_prob, signature="(d)->()")(flat)


@jax.jit  # one compilation, where eager costs one an operation
def _fitting_schedule(components: Mixture) -> Schedule:
    """An OU schedule from where the components merge to where the finest scale is resolved."""
    centred = components.means - components.mean[None]
    largest = jnp.max(components.eigenvalues, axis=-1)
    squared_radius = jnp.max(jnp.sum(centred**2, axis=-1) + largest)
    finest = jnp.min(components.eigenvalues)
    if components.is_low_rank:
        finest = jnp.minimum(finest, jnp.min(components.rest))
    base = schedules.OrnsteinUhlenbeck()
    return schedules.OrnsteinUhlenbeck(
        t_min=base.time(-jnp.log(finest) - 2.0 * jnp.log(0.05)),
        t_max=base.time(-jnp.log(squared_radius) + 2.0 * jnp.log(0.3)),
    )
