"""Where the schedule of a learned prior may end.

Sampling starts from N(0, sigma_T^2 I) in the place of the law of x_T = alpha_T x_0 + sigma_T eps.
Let the data have mean mu, and variance v along it. The law of x_T then has its mean off by

    shift = alpha_T |mu| / sigma_T

standard deviations of the noise. Reverse steps forget most of that: for Gaussian data
E[x_0 given x_T] has the slope alpha_T v / (alpha_T^2 v + sigma_T^2), so that the mean of what is
drawn is off along mu by

    bias = shift sqrt(v) alpha_T / sigma_T

standard deviations of the data. Their variance falls short by a share (alpha_T^2 v / sigma_T^2)^2,
no more than bias^2, and the log evidence of an observation that fixes x_0 along mu is off by
about ``bias`` nat. (A deterministic flow forgets nothing: its draws are off by ``shift``.)

Both are bounded by what a model's folder knows: the root mean square norm of an event, which is at
least |mu| and sqrt(v), and the largest variance of the data in any direction, which is at least v.
"""

from __future__ import annotations

import math

import numpy as np

from smcdiff.diffusion.schedules import Cosine, Schedule
from smcdiff.errors import InputError

_MOST_BIAS = 0.1
"""Of the bias: the Monte-Carlo error of the mean of 100 draws, a tenth of a nat of log evidence."""

_MOST_SHIFT = 1.0
"""Of the shift: the laws of x_T that the network was trained at and is asked at overlap by more
than half (their total variation distance is 0.38)."""

_RESERVE = 0.5
"""Share of both limits that training uses: a bias of 0.05 and a shift of 0.5."""


def _shift_and_bias(ratio: float, norm: float, variance: float) -> tuple[float, float]:
    """Bounds of both, for ``ratio`` = alpha_T / sigma_T."""
    return ratio * norm, ratio**2 * norm * math.sqrt(variance)


def check_terminal(name: str, schedule: Schedule, norm: float, variance: float) -> None:
    """Raises ``InputError`` where too much of the data is left at the end of a schedule.

    Args:
        name: whose schedule it is, for the message.
        schedule: the noise schedule.
        norm: root mean square norm of an event, in data units.
        variance: largest variance of the data in any direction, in squared data units.
    """
    end = schedule.noisiest
    ratio = float(end.alpha) / float(end.sigma)
    shift, bias = _shift_and_bias(ratio, norm, variance)
    if not (shift <= _MOST_SHIFT and bias <= _MOST_BIAS):
        raise InputError(
            f"{name}: at t_max the signal is still up to {shift:.2f} of the noise (data of norm"
            f" {norm:.1f} and variance {variance:.3g}), so that draws would be off by up to"
            f" {bias:.2f} of their standard deviation (at most {_MOST_BIAS}); raise the schedule's"
            " t_max"
        )


def cosine_for(norm: float, variance: float) -> Cosine:
    """The cosine schedule that ends where little enough of the data is left.

    Args:
        norm: root mean square norm of an event, in data units.
        variance: largest variance of the data in any direction, in squared data units.

    Returns:
        The package's default, or one with a later end.
    """
    usual = Cosine()
    shift, bias = _shift_and_bias(1.0, norm, variance)
    largest = min(_RESERVE * _MOST_SHIFT / shift, math.sqrt(_RESERVE * _MOST_BIAS / bias))
    # cot(pi t / 2) = alpha / sigma; double precision, for t is close to one.
    end = 2.0 / np.pi * math.atan2(1.0, largest)
    return Cosine(t_max=max(float(usual.t_max), end))
