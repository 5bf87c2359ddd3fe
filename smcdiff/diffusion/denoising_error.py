"""How well a denoiser does at each noise level."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.base.module import Module
from smcdiff.diffusion.schedules import Focused, Level

_UNDECIDED, _DECIDED = 0.9, 0.005
"""Of the largest error: where the prior begins to decide what it is going to be, and has done."""


class DenoisingError(Module):
    """Mean squared error of the denoised mean, per coordinate, at some noise levels.

    For a perfect denoiser it is the mean posterior variance of x_0 given x_t.

    Attributes:
        log_snr: (n,), increasing.
        values: (n,), positive, in squared data units.
    """

    log_snr: Float[Array, " n"]
    values: Float[Array, " n"]

    def at(self, level: Level) -> Float[Array, ""]:
        """The error at a level: its logarithm is interpolated in the log-SNR, flat at the ends."""
        return jnp.exp(jnp.interp(level.log_snr, self.log_snr, jnp.log(self.values)))

    def focus(self) -> Focused:
        """The grid with most steps where the error falls from 0.9 to 0.005 of its largest value."""
        # Falling, so that what is left is increasing in the log-SNR.
        fallen = -np.log(np.asarray(self.values, np.float64) / np.max(self.values))
        fallen = np.maximum.accumulate(fallen)
        low, high = np.interp(-np.log([_UNDECIDED, _DECIDED]), fallen, self.log_snr)
        return Focused(round(float(low), 1), round(float(high), 1))
