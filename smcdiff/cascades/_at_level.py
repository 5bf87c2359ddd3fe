"""The law of a prior's x_t at one noise level, as a prior of its own: reverse steps that end there.

From the level lambda on the forward process goes on: with x_l = alpha_l x_0 + sigma_l eps,

    x_t = (alpha_t / alpha_l) x_l + sigma_t sqrt(1 - exp(lambda_t - lambda)) eps',

so that x_l is the event of a diffusion whose times are those of the prior beyond the level, and
E[x_l given x_t] is linear in x_t and E[x_0 given x_t]: the same network, the same noisy states.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base._numbers import Scalar, Values
from smcdiff.diffusion.kernels import bridge
from smcdiff.diffusion.laws import Mixture
from smcdiff.diffusion.schedules import Schedule
from smcdiff.errors import InputError
from smcdiff.priors import AnalyticPrior, Prior
from smcdiff.priors._spectrum import Spectrum, is_concrete


def at_level(prior: Prior, log_snr: float) -> Prior:
    """The law of a prior's noised draws, at the variance-preserving scale.

    Args:
        prior: of x_0. Of an analytic one the result is analytic, too.
        log_snr: of the noise.

    Raises:
        InputError: a level that is beyond those of the prior's schedule.
    """
    if isinstance(prior, AnalyticPrior):
        return _AnalyticAtLevel(prior, log_snr)
    return _AtLevel(prior, log_snr)


class _AnalyticAtLevel(AnalyticPrior):
    """The marginal of a Gaussian or a mixture."""

    def __init__(self, prior: AnalyticPrior, log_snr: float):
        alpha2, sigma2 = jax.nn.sigmoid(log_snr), jax.nn.sigmoid(-log_snr)
        noised = prior.components.with_variances(lambda v: alpha2 * v + sigma2, jnp.sqrt(alpha2))
        spectrum = Spectrum(noised.eigenvalues, noised.basis, jnp.asarray(noised.rest))
        self._setup(noised.log_weights, noised.means, spectrum, prior.event_shape, None)


class _Beyond(Schedule):
    """The noise that a schedule adds beyond one of its levels.

    Attributes:
        whole: the schedule.
        start: the time of the level in it.
    """

    whole: Schedule
    start: Float[Array, ""]

    def alpha(self, t: Values) -> Float[Array, "*steps"]:
        """Of what is left since the level."""
        return self.whole.alpha(t + self.start) / self.whole.alpha(self.start)

    def sigma(self, t: Values) -> Float[Array, "*steps"]:
        """Of the noise since the level, where x has the variance-preserving scale there."""
        since = self.whole.log_snr(t + self.start) - self.level_log_snr
        since = jnp.minimum(since, 0.0)  # of rounding
        return self.scale * self.whole.sigma(t + self.start) * jnp.sqrt(-jnp.expm1(since))

    @property
    def level_log_snr(self) -> Float[Array, ""]:
        """Of the level."""
        return self.whole.log_snr(self.start)

    @property
    def scale(self) -> Float[Array, ""]:
        """From the schedule's units to the variance-preserving ones."""
        return jnp.sqrt(jax.nn.sigmoid(self.level_log_snr)) / self.whole.alpha(self.start)


def _beyond(whole: Schedule, log_snr: float) -> _Beyond:
    """From the level on; its least noise is, in log-SNR, that of the schedule."""
    ends = whole.level(jnp.stack([jnp.asarray(whole.t_min), jnp.asarray(whole.t_max)])).log_snr
    if is_concrete(ends) and not ends[1] < log_snr < ends[0]:
        raise InputError(
            f"cascades.Truncated: log_snr is {log_snr:g}, and the schedule of the prior that is"
            f" truncated reaches from {ends[1]:.3g} to {ends[0]:.3g}; give a level within"
        )
    return _fitted(whole, jnp.asarray(log_snr), ends[0])


@jax.jit
def _fitted(whole: Schedule, log_snr: Float[Array, ""], least: Float[Array, ""]) -> _Beyond:
    start = whole.time(log_snr)
    rest = _Beyond(whole, start, t_min=jnp.zeros(()), t_max=whole.t_max - start)
    return dataclasses.replace(rest, t_min=rest.time(least))


class _AtLevel(Prior):
    """The law of x at a level of any prior, through the prior's denoiser."""

    prior: Prior
    data_variance: Float[Array, ""]

    def __init__(self, prior: Prior, log_snr: float):
        self.prior = prior
        alpha2, sigma2 = jax.nn.sigmoid(log_snr), jax.nn.sigmoid(-log_snr)
        self.data_variance = alpha2 * prior.data_variance + sigma2
        schedule = _beyond(prior.schedule, log_snr)
        super().__init__(schedule, prior.event_shape, num_steps=prior.num_steps)

    @property
    def _beyond(self) -> _Beyond:
        assert isinstance(self.schedule, _Beyond)
        return self.schedule

    @property
    def is_self_contained(self) -> bool:
        """As the prior."""
        return self.prior.is_self_contained

    @property
    def centre(self) -> Float[Array, "*event"]:
        """Of the prior, as much as the noise leaves."""
        return jnp.sqrt(jax.nn.sigmoid(self._beyond.level_log_snr)) * self.prior.centre

    def posterior_mean(self, x: Float[Array, "*event"], t: Scalar) -> Float[Array, "*event"]:
        """E[x at the level given x_t = x]: one evaluation of the prior's denoiser."""
        beyond, time = self._beyond, t + self._beyond.start
        noisier, level = (beyond.whole.level(at) for at in (time, beyond.start))
        from_noise, from_signal, _ = bridge(noisier, level)
        x = x / beyond.scale
        return beyond.scale * (from_noise * x + from_signal * self.prior.denoise(x, time))

    def terminal(self) -> Mixture:
        """The prior's own: it starts from the same noise."""
        scale = self._beyond.scale
        return self.prior.terminal().with_variances(lambda v: scale**2 * v, scale)
