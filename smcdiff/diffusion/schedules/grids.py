"""Grids: where the steps of a sampler lie between ``t_max`` and the noise-free time.

A grid is a decreasing sequence ``T = t_K > ... > t_1 > t_0 = 0`` with K steps. Its noisy part runs
from ``t_max`` to ``t_min``; the last step goes to the noise-free time 0.

Reference:
    Karras et al. (2022), Elucidating the design space of diffusion models (rho grid).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from smcdiff.base._numbers import Scalar
from smcdiff.base.module import Module, static
from smcdiff.diffusion.schedules.base import Level, Schedule
from smcdiff.errors import InputError


class Grid(Module):
    """Base class of grids; a subclass places the noisy times."""

    def noisy_times(self, schedule: Schedule, num_steps: int) -> Float[Array, " steps"]:
        """Decreasing times from ``t_max`` to ``t_min``, (num_steps,)."""
        raise NotImplementedError(f"{type(self).__name__} must define noisy_times")

    def __call__(self, schedule: Schedule, num_steps: int) -> Level:
        """The noise levels, fields of shape (num_steps + 1,), the last one free of noise.

        Args:
            schedule: noise schedule.
            num_steps: steps of the sampler, at least 2.

        Raises:
            InputError: fewer than 2 steps, or ends of the schedule between which none can lie.
        """
        _check(schedule, num_steps)
        # Not compiled: a schedule of a user's own may read what has changed since.
        return _ended(schedule.level(self.noisy_times(schedule, num_steps)))


@jax.jit  # one compilation, where eager costs one an operation
def _ended(noisy: Level) -> Level:
    """The noisy levels, numbered, and after them the one free of noise."""
    num_steps = len(noisy.time)
    noisy = noisy._replace(index=jnp.arange(num_steps, dtype=jnp.int32))
    last = Level.clean(num_steps)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None].astype(a.dtype)]), noisy, last)


def _check(schedule: Schedule, num_steps: int) -> None:
    """Raises ``InputError`` where a grid would have no steps, or none that less noise follows."""
    if num_steps < 2:
        raise InputError(f"num_steps is {num_steps}; a time grid needs at least 2 steps")
    first, last = _ends(schedule)
    if isinstance(first, Tracer) or isinstance(last, Tracer):
        return
    if not -math.inf < float(first) < float(last) < math.inf:
        raise InputError(
            f"the schedule {schedule!r} has log-SNR {first:.4g} at t_max and {last:.4g} at t_min;"
            " they must be finite and increase, so take t_min above 0, t_max above t_min and, where"
            " alpha reaches 0, t_max below that time"
        )


def _ends(schedule: Schedule) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The log-SNR at ``t_max`` and at ``t_min``."""
    return schedule.level(schedule.t_max).log_snr, schedule.level(schedule.t_min).log_snr


class UniformLogSNR(Grid):
    """Times at which the log-SNR is equally spaced; the default."""

    def noisy_times(self, schedule: Schedule, num_steps: int) -> Float[Array, " steps"]:
        """Decreasing times, (num_steps,)."""
        return schedule.time(jnp.linspace(*_ends(schedule), num_steps))


class UniformTime(Grid):
    """Equally spaced times."""

    def noisy_times(self, schedule: Schedule, num_steps: int) -> Float[Array, " steps"]:
        """Decreasing times, (num_steps,)."""
        return jnp.linspace(schedule.t_max, schedule.t_min, num_steps)


class UniformSqrtAlphaBar(Grid):
    """Times at which DDPM's sqrt(alpha-bar) is equally spaced.

    The signal fraction ``alpha / sqrt(alpha^2 + sigma^2)`` is spaced, which is sqrt(alpha-bar) for
    variance-preserving schedules and defines the grid for variance-exploding ones.
    """

    def noisy_times(self, schedule: Schedule, num_steps: int) -> Float[Array, " steps"]:
        """Decreasing times, (num_steps,)."""
        ends = _ends(schedule)
        first, last = (jnp.sqrt(jax.nn.sigmoid(end)) for end in ends)
        fraction = jnp.linspace(first, last, num_steps)
        # logit(f^2), with 1 - f^2 factorised so that it keeps its digits near f = 1.
        log_snr = 2.0 * jnp.log(fraction) - jnp.log1p(fraction) - jnp.log1p(-fraction)
        return schedule.time(log_snr.at[0].set(ends[0]).at[-1].set(ends[1]))


class Karras(Grid):
    """Karras et al. (2022), eq. 5: ``(sigma/alpha)^(1/rho)`` equally spaced.

    Attributes:
        rho: exponent; larger values put more steps at low noise.
    """

    rho: Scalar = 7.0

    def noisy_times(self, schedule: Schedule, num_steps: int) -> Float[Array, " steps"]:
        """Decreasing times, (num_steps,)."""
        first, last = (jnp.exp(-0.5 / self.rho * end) for end in _ends(schedule))
        root = jnp.linspace(first, last, num_steps)
        return schedule.time(-2.0 * self.rho * jnp.log(root))


class Focused(Grid):
    """Most steps between two log-SNRs, where the prior decides what it is going to be.

    The log-SNR is equally spaced there, and more widely on either side. The variance of weights
    falls with the length of the steps, but only where the denoised mean moves.

    Attributes:
        low: log-SNR where the fine steps begin.
        high: log-SNR where they end.
        share: of the steps, that are fine; in (0, 1).
    """

    low: float = static()
    high: float = static()
    share: float = static(default=0.85)

    def __post_init__(self):
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(
                f"Focused: low is {self.low} and high {self.high}; they must be finite and increase"
            )
        if not 0.0 < self.share < 1.0:
            raise InputError(f"Focused: share is {self.share}; it must lie in (0, 1)")

    def noisy_times(self, schedule: Schedule, num_steps: int) -> Float[Array, " steps"]:
        """Decreasing times, (num_steps,)."""
        first, last = _ends(schedule)
        low, high = jnp.clip(self.low, first, last), jnp.clip(self.high, first, last)
        outside = (low - first) + (last - high)
        # The shares of the steps before and after; where nothing is outside, all are fine.
        rest = jnp.where(outside > 0.0, 1.0 - self.share, 0.0)
        before = rest * (low - first) / jnp.where(outside > 0.0, outside, 1.0)
        inside = jnp.where(outside > 0.0, self.share, 1.0)
        places = jnp.stack([jnp.zeros(()), before, before + inside, jnp.ones(())])
        ends = jnp.stack([first, low, high, last])
        return schedule.time(jnp.interp(jnp.linspace(0.0, 1.0, num_steps), places, ends))
