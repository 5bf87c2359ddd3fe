"""Noise schedules and time grids of the forward process ``x_t = alpha(t) x_0 + sigma(t) eps``.

A schedule is a pair of functions (alpha, sigma) of a continuous time t, with alpha(0) = 1 and
sigma(0) = 0, and the interval ``[t_min, t_max]`` in which a sampler may place its noisy times.
Everything downstream is expressed through the log signal-to-noise ratio

    lambda(t) = log(alpha(t)^2 / sigma(t)^2),

which decreases in t. Noise levels are in the units of the data that the prior was trained on.

A grid is a decreasing sequence ``T = t_K > ... > t_1 > t_0 = 0`` with K steps. Its noisy part runs
from ``t_max`` to ``t_min``; the last step goes to the noise-free time 0.

References:
    Song et al. (2021), Score-based generative modeling through SDEs (VP, VE).
    Ho et al. (2020), Denoising diffusion probabilistic models (linear beta).
    Nichol and Dhariwal (2021), Improved DDPM (cosine).
    Karras et al. (2022), Elucidating the design space of diffusion models (rho grid).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from smcdiff.base.module import Module
from smcdiff.errors import InputError

Scalar = Float[Array, ""] | float
TIMESTEPS = 1000.0
"""DDPM's time steps in one unit of a schedule's time: networks embed ``TIMESTEPS * t``."""


class Level(NamedTuple):
    """The noise level at one time, or at every time of a grid.

    Attributes:
        time: t.
        alpha: signal scale alpha(t).
        sigma: noise standard deviation sigma(t), in data units.
        log_snr: lambda(t) = log(alpha^2 / sigma^2); infinite at t = 0.
    """

    time: Float[Array, "*steps"]
    alpha: Float[Array, "*steps"]
    sigma: Float[Array, "*steps"]
    log_snr: Float[Array, "*steps"]


@runtime_checkable
class Schedule(Protocol):
    """What a noise schedule offers. All methods are elementwise in ``t``."""

    @property
    def t_min(self) -> Scalar:
        """Smallest time of a grid, before the last step to 0."""
        ...

    @property
    def t_max(self) -> Scalar:
        """Largest time: where sampling starts."""
        ...

    def alpha(self, t: Any) -> Array:
        """Scale of the signal at time t."""
        ...

    def sigma(self, t: Any) -> Array:
        """Standard deviation of the noise at time t, in data units."""
        ...

    def log_snr(self, t: Any) -> Array:
        """Log signal-to-noise ratio log(alpha^2 / sigma^2)."""
        ...

    def time(self, log_snr: Any) -> Array:
        """The time at which the log signal-to-noise ratio takes this value."""
        ...


class _LogSNR(Module):
    """The log-SNR from alpha and sigma; shared by every schedule below."""

    def log_snr(self, t):
        """Log signal-to-noise ratio log(alpha^2 / sigma^2); infinite at t = 0."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))  # type: ignore[attr-defined]


class OrnsteinUhlenbeck(_LogSNR):
    """Variance preserving, ``alpha = exp(-t)``: the OU process dx = -x dt + sqrt(2) dW.

    Attributes:
        t_min: smallest noisy time; sigma is about sqrt(2 t_min) there.
        t_max: horizon T.
    """

    t_min: Scalar = 5e-5
    t_max: Scalar = 5.0

    def alpha(self, t):
        """Signal scale exp(-t)."""
        return jnp.exp(-jnp.asarray(t))

    def sigma(self, t):
        """Noise standard deviation sqrt(1 - exp(-2t))."""
        return jnp.sqrt(-jnp.expm1(-2.0 * jnp.asarray(t)))

    def time(self, log_snr):
        """Inverse of the log-SNR."""
        return 0.5 * jax.nn.softplus(-jnp.asarray(log_snr))


class VarianceExploding(_LogSNR):
    """Variance exploding, ``alpha = 1, sigma = t``: time *is* the noise standard deviation.

    Attributes:
        t_min: smallest noise standard deviation, in data units.
        t_max: largest noise standard deviation, in data units.
    """

    t_min: Scalar = 0.01
    t_max: Scalar = 100.0

    def alpha(self, t):
        """Signal scale 1."""
        return jnp.ones_like(jnp.asarray(t, jnp.result_type(float)))

    def sigma(self, t):
        """Noise standard deviation t."""
        return jnp.asarray(t, jnp.result_type(float))

    def time(self, log_snr):
        """Inverse of the log-SNR."""
        return jnp.exp(-0.5 * jnp.asarray(log_snr))


class LinearBeta(_LogSNR):
    """DDPM's linear beta schedule in continuous time, variance preserving.

    ``log alpha(t) = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2`` on t in (0, 1]. The 1000-step
    DDPM with beta from 1e-4 to 0.02 is beta_min = 0.1, beta_max = 20.

    Attributes:
        beta_min: rate at t = 0.
        beta_max: rate at t = 1.
        t_min: smallest noisy time.
        t_max: horizon T.
    """

    beta_min: Scalar = 0.1
    beta_max: Scalar = 20.0
    t_min: Scalar = 1e-3
    t_max: Scalar = 1.0

    def _minus_two_log_alpha(self, t):
        t = jnp.asarray(t)
        return 0.5 * t**2 * (self.beta_max - self.beta_min) + t * self.beta_min

    def alpha(self, t):
        """Signal scale."""
        return jnp.exp(-0.5 * self._minus_two_log_alpha(t))

    def sigma(self, t):
        """Noise standard deviation sqrt(1 - alpha^2)."""
        return jnp.sqrt(-jnp.expm1(-self._minus_two_log_alpha(t)))

    def time(self, log_snr):
        """Inverse of the log-SNR."""
        target = jax.nn.softplus(-jnp.asarray(log_snr))
        slope = self.beta_max - self.beta_min
        return 2.0 * target / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2.0 * slope * target))


class Cosine(_LogSNR):
    """Cosine schedule, variance preserving: ``alpha = cos(pi t / 2), sigma = sin(pi t / 2)``.

    The defaults span log-SNR from 9.2 (sigma = 0.01) to -9.2 (alpha = 0.01).

    Attributes:
        t_min: smallest noisy time, in (0, 1).
        t_max: horizon T, in (0, 1).
    """

    t_min: Scalar = 0.0063664
    t_max: Scalar = 0.9936336

    def alpha(self, t):
        """Signal scale cos(pi t / 2)."""
        return jnp.cos(0.5 * jnp.pi * jnp.asarray(t))

    def sigma(self, t):
        """Noise standard deviation sin(pi t / 2)."""
        return jnp.sin(0.5 * jnp.pi * jnp.asarray(t))

    def time(self, log_snr):
        """Inverse of the log-SNR."""
        return 2.0 / jnp.pi * jnp.arctan(jnp.exp(-0.5 * jnp.asarray(log_snr)))


class Grid(Protocol):
    """Places ``num_steps`` steps between ``schedule.t_max`` and 0."""

    def __call__(self, schedule: Schedule, num_steps: int) -> Float[Array, " levels"]:
        """Decreasing times, shape (num_steps + 1,), the last one 0."""
        ...


def _check(schedule: Schedule, num_steps: int) -> None:
    """Raises ``InputError`` where a grid would have no steps, or none that less noise follows."""
    if num_steps < 2:
        raise InputError(f"num_steps is {num_steps}; a time grid needs at least 2 steps")
    ends = schedule.log_snr(schedule.t_max), schedule.log_snr(schedule.t_min)
    if any(isinstance(end, Tracer) for end in ends):
        return
    if not -math.inf < float(ends[0]) < float(ends[1]) < math.inf:
        raise InputError(
            f"the schedule {schedule!r} has log-SNR {ends[0]:.4g} at t_max and {ends[1]:.4g} at"
            " t_min; they must be finite and increase, so take t_min above 0, t_max above t_min"
            " and, where alpha reaches 0, t_max below that time"
        )


def _ending_at_zero(times: Float[Array, " steps"]) -> Float[Array, " levels"]:
    return jnp.concatenate([times, jnp.zeros((1,), times.dtype)])


class UniformLogSNR(Module):
    """Times at which the log-SNR is equally spaced; the default."""

    def __call__(self, schedule: Schedule, num_steps: int) -> Float[Array, " levels"]:
        """Decreasing times, shape (num_steps + 1,), the last one 0."""
        _check(schedule, num_steps)
        ends = schedule.log_snr(schedule.t_max), schedule.log_snr(schedule.t_min)
        return _ending_at_zero(schedule.time(jnp.linspace(*ends, num_steps)))


class UniformTime(Module):
    """Equally spaced times."""

    def __call__(self, schedule: Schedule, num_steps: int) -> Float[Array, " levels"]:
        """Decreasing times, shape (num_steps + 1,), the last one 0."""
        _check(schedule, num_steps)
        return _ending_at_zero(jnp.linspace(schedule.t_max, schedule.t_min, num_steps))


class UniformSqrtAlphaBar(Module):
    """Times at which DDPM's sqrt(alpha-bar) is equally spaced.

    The signal fraction ``alpha / sqrt(alpha^2 + sigma^2)`` is spaced, which is sqrt(alpha-bar) for
    variance-preserving schedules and defines the grid for variance-exploding ones.
    """

    def __call__(self, schedule: Schedule, num_steps: int) -> Float[Array, " levels"]:
        """Decreasing times, shape (num_steps + 1,), the last one 0."""
        _check(schedule, num_steps)
        ends = [schedule.log_snr(t) for t in (schedule.t_max, schedule.t_min)]
        first, last = (jnp.sqrt(jax.nn.sigmoid(end)) for end in ends)
        fraction = jnp.linspace(first, last, num_steps)
        # logit(f^2), with 1 - f^2 factorised so that it keeps its digits near f = 1.
        log_snr = 2.0 * jnp.log(fraction) - jnp.log1p(fraction) - jnp.log1p(-fraction)
        log_snr = log_snr.at[0].set(ends[0]).at[-1].set(ends[1])
        return _ending_at_zero(schedule.time(log_snr))


class Karras(Module):
    """Karras et al. (2022), eq. 5: ``(sigma/alpha)^(1/rho)`` equally spaced.

    Attributes:
        rho: exponent; larger values put more steps at low noise.
    """

    rho: Scalar = 7.0

    def __call__(self, schedule: Schedule, num_steps: int) -> Float[Array, " levels"]:
        """Decreasing times, shape (num_steps + 1,), the last one 0."""
        _check(schedule, num_steps)
        times = jnp.asarray([schedule.t_max, schedule.t_min])
        first, last = jnp.exp(-0.5 / self.rho * schedule.log_snr(times))
        root = jnp.linspace(first, last, num_steps)
        return _ending_at_zero(schedule.time(-2.0 * self.rho * jnp.log(root)))


def levels(schedule: Schedule, times: Float[Array, "*steps"]) -> Level:
    """The noise levels of a schedule at the given times.

    Args:
        schedule: the noise schedule.
        times: any shape, in the schedule's time.

    Returns:
        A ``Level`` whose fields have the shape of ``times``.
    """
    return Level(times, schedule.alpha(times), schedule.sigma(times), schedule.log_snr(times))
