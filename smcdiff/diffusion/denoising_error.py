"""How well a denoiser does at each noise level."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import Module
from smcdiff.diffusion.schedules import Level


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
