"""How much each noise level counts in the loss, realised by how often it is drawn.

A weight w(t) on the squared error of the network's target, times the uniform density of t, is the
same objective as that density with every weight one, up to a constant: drawing the levels in
proportion to their weight leaves no large factors in the gradient (Kingma and Gao 2023, section 4).
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.priors import Prediction

_TABLE = 2048  # times at which a density is tabulated: far finer than any weight varies


@runtime_checkable
class Weighting(Protocol):
    """A weight of the target's squared error at each noise level, on uniformly drawn times."""

    def __call__(self, level: Level, prediction: Prediction) -> Array:
        """Weights, positive, up to a constant; ``level`` has one entry a time."""
        ...


@dataclasses.dataclass(frozen=True)
class Uniform:
    """The plain error of the target, at uniform times (Ho et al. 2020)."""

    def __call__(self, level: Level, prediction: Prediction):
        """One everywhere."""
        return jnp.ones_like(level.alpha)


@dataclasses.dataclass(frozen=True)
class MinSNR:
    """Weight ``min(SNR, gamma)`` on the error of x_0 (Hang et al. 2023, eq. 6).

    Attributes:
        gamma: where the weight stops to grow.
    """

    gamma: float = 5.0

    def __call__(self, level: Level, prediction: Prediction):
        """The weight, carried over from the error of x_0 to that of the target."""
        # The denoised mean is linear in the output: its slope carries one error into the other.
        slope = prediction.denoised(jnp.ones_like(level.time), jnp.zeros_like(level.time), level)
        return jnp.minimum(jnp.exp(level.log_snr), self.gamma) * slope**2


@dataclasses.dataclass(frozen=True)
class LogNormal:
    """Noise levels whose log is normal (Karras et al. 2022, table 1).

    Theirs, log(sigma / alpha) of mean -1.2 and standard deviation 1.2, is the default.

    Attributes:
        mean: of the log-SNR, ``-2 log(sigma / alpha)``.
        std: of the log-SNR.
        uniform: share drawn at uniform times instead: a network that is trained further forgets
            the levels that it no longer sees.
    """

    mean: float = 2.4
    std: float = 2.4
    uniform: float = 0.0

    def __call__(self, level: Level, prediction: Prediction):
        """The density of the time; ``level`` must be an even grid of times."""
        exponent = -0.5 * ((level.log_snr - self.mean) / self.std) ** 2
        # Up to a constant, and never zero everywhere, however far off the mean is.
        normal = jnp.exp(exponent - jnp.max(exponent))
        drawn = normal * -jnp.asarray(jnp.gradient(level.log_snr, level.time))
        return (1.0 - self.uniform) * drawn / jnp.mean(drawn) + self.uniform


def draw_times(
    uniforms: Float[Array, " n"], weighting: Weighting, prediction: Prediction, schedule: Schedule
) -> Float[Array, " n"]:
    """Times drawn in proportion to their weight, by inversion.

    Args:
        uniforms: in [0, 1).
        weighting: the weight of each level.
        prediction: what the network learns.
        schedule: noise schedule; times lie between its ``t_min`` and ``t_max``.

    Returns:
        (n,), increasing with ``uniforms``.
    """
    times = jnp.linspace(schedule.t_min, schedule.t_max, _TABLE)
    weights = weighting(schedule.level(times), prediction)
    pieces = 0.5 * (weights[1:] + weights[:-1])
    mass = jnp.concatenate([jnp.zeros(1), jnp.cumsum(pieces)])
    return jnp.interp(uniforms, mass / mass[-1], times)
