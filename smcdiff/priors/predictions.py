"""What the output of a network means, turned into the denoised mean m(x, t) in this one file.

With x = alpha x_0 + sigma eps,

    x_0-prediction: m = output;
    eps-prediction: m = (x - sigma output) / alpha;
    v-prediction (Salimans and Ho 2022), v = alpha eps - sigma x_0, with alpha^2 + sigma^2 = 1:
        m = alpha x - sigma output;
    EDM's preconditioning (Karras et al. 2022), with s = sigma / alpha and data of deviation d:
        m = (d^2 x / alpha + s d sqrt(s^2 + d^2) output) / (s^2 + d^2).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import Module, static
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError


class Prediction(Module):
    """Base class: what a network is given, and what its output means."""

    def inputs(
        self, x: Float[Array, "*event"], level: Level
    ) -> tuple[Float[Array, "*event"], Float[Array, ""]]:
        """What the network is called with, for the noisy event x; by default (x, t)."""
        return x, level.time

    def denoised(
        self, output: Float[Array, "*event"], x: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """The denoised mean, from the output and the noisy event x."""
        raise NotImplementedError(f"{type(self).__name__} must define denoised")

    def target(
        self, clean: Float[Array, "*event"], noise: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """What the network should output for x = alpha clean + sigma noise; used in training."""
        raise NotImplementedError(f"{type(self).__name__} must define target")


class X0Prediction(Prediction):
    """The network predicts x_0."""

    def denoised(
        self, output: Float[Array, "*event"], x: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """The output itself."""
        return output

    def target(
        self, clean: Float[Array, "*event"], noise: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """The clean event."""
        return clean


class EpsPrediction(Prediction):
    """The network predicts the noise eps."""

    def denoised(
        self, output: Float[Array, "*event"], x: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """(x - sigma eps) / alpha."""
        return (x - level.sigma * output) / level.alpha

    def target(
        self, clean: Float[Array, "*event"], noise: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """The noise."""
        return noise


class VPrediction(Prediction):
    """The network predicts v = alpha eps - sigma x_0; scaled where alpha^2 + sigma^2 != 1."""

    def denoised(
        self, output: Float[Array, "*event"], x: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """(alpha x - sigma v) / (alpha^2 + sigma^2)."""
        return (level.alpha * x - level.sigma * output) / (level.alpha**2 + level.sigma**2)

    def target(
        self, clean: Float[Array, "*event"], noise: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """Alpha eps - sigma x_0."""
        return level.alpha * noise - level.sigma * clean


class EDMPrediction(Prediction):
    """A network with EDM's preconditioning (Karras et al. 2022, table 1).

    It is called as ``F(c_in x / alpha, log(s) / 4)`` with s = sigma / alpha: the noise level, and
    not the time, is its second argument. On any schedule; `schedules.VarianceExploding` is EDM's.

    Attributes:
        data_std: the standard deviation of the data that it was trained with, sigma_data.
    """

    data_std: float = static(default=0.5)

    def __post_init__(self):
        if not self.data_std > 0.0:
            raise InputError(f"EDMPrediction: data_std is {self.data_std}; it must be positive")

    def inputs(
        self, x: Float[Array, "*event"], level: Level
    ) -> tuple[Float[Array, "*event"], Float[Array, ""]]:
        """(x / alpha) / sqrt(s^2 + d^2), and log(s) / 4."""
        noise = level.sigma / level.alpha
        scale = jnp.sqrt(noise**2 + self.data_std**2)
        return x / level.alpha / scale, 0.25 * jnp.log(noise)

    def denoised(
        self, output: Float[Array, "*event"], x: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """c_skip x / alpha + c_out F."""
        skip, out = self._coefficients(level)
        return skip * x / level.alpha + out * output

    def target(
        self, clean: Float[Array, "*event"], noise: Float[Array, "*event"], level: Level
    ) -> Float[Array, "*event"]:
        """(x_0 - c_skip x / alpha) / c_out."""
        skip, out = self._coefficients(level)
        return (clean - skip * (clean + level.sigma / level.alpha * noise)) / out

    def _coefficients(self, level: Level) -> tuple[Float[Array, "*steps"], Float[Array, "*steps"]]:
        """C_skip and c_out."""
        noise = level.sigma / level.alpha
        total = noise**2 + self.data_std**2
        return self.data_std**2 / total, noise * self.data_std / jnp.sqrt(total)
