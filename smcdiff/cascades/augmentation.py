"""Conditioning augmentation: the low resolution is noised before an upsampler sees it.

An upsampler is trained on low resolutions of real pictures, and is then given those that another
prior draws, which are not quite like them. Noise hides the difference, and the upsampler is told
how much of it there is (Ho et al. 2022, section 4). The noise level is a log-SNR lambda, and the
noised picture has the variance-preserving scale at every schedule:

    c = sqrt(sigmoid(lambda)) low + sqrt(sigmoid(-lambda)) eps.

Reference:
    Ho, Saharia, Chan, Fleet, Norouzi, Salimans (2022), Cascaded diffusion models for high fidelity
    image generation, JMLR 23.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff import priors
from smcdiff.base._numbers import Scalar
from smcdiff.base.module import Module, static
from smcdiff.cascades._at_level import at_level
from smcdiff.errors import InputError
from smcdiff.priors import Prior

_LARGEST = 20.0


class LowResolution(Module):
    """What an upsampler is given: the low resolution as it sees it, and how much noise that has.

    Attributes:
        image: noised, at the variance-preserving scale; see the module.
        log_snr: its noise level, infinite where there is no noise. An input of its own: it is not
            the time of the upsampler's own diffusion.
    """

    image: Float[Array, "*event"]
    log_snr: Scalar = math.inf

    @classmethod
    def noised(
        cls, key: PRNGKeyArray, clean: Float[Array, "*event"], log_snr: Scalar
    ) -> LowResolution:
        """A clean low resolution with the noise of a level."""
        alpha, sigma = scales(log_snr)
        return cls(alpha * clean + sigma * jax.random.normal(key, clean.shape), log_snr)


def scales(log_snr: Scalar) -> tuple[Array, Array]:
    """Alpha and sigma of a log-SNR at the variance-preserving scale."""
    return jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-jnp.asarray(log_snr)))


class Augmentation(Module):
    """Base class: how a cascade noises what it gives to its upsamplers.

    Attributes:
        log_snr: lambda of the noise; large is little. As many nat as ``2 log(alpha / sigma)``.

    Raises:
        InputError: a log-SNR that is none.
    """

    log_snr: float = static()

    def __post_init__(self):
        if not -_LARGEST <= self.log_snr <= _LARGEST:
            raise InputError(
                f"cascades.{type(self).__name__}: log_snr is {self.log_snr}; it is a log"
                f" signal-to-noise ratio within {-_LARGEST:g} and {_LARGEST:g}, for example 3.0;"
                " for no noise give Cascade(..., augmentation=None)"
            )

    def draw(self, key: PRNGKeyArray, prior: Prior) -> LowResolution:
        """One noised draw of a prior."""
        raise NotImplementedError(f"{type(self).__name__} must define draw")

    def declare(self, name: str, prior: Prior) -> LowResolution:
        """The NumPyro sites of a noised draw of a prior."""
        raise NotImplementedError(f"{type(self).__name__} must define declare")


class Gaussian(Augmentation):
    """Gaussian conditioning augmentation: the stage below is drawn whole, and then noised.

    Attributes:
        log_snr: of the noise.
    """

    def draw(self, key: PRNGKeyArray, prior: Prior) -> LowResolution:
        """A draw, and noise on it."""
        key_low, key_noise = jax.random.split(key)
        return LowResolution.noised(key_noise, prior.sample(key_low), self.log_snr)

    def declare(self, name: str, prior: Prior) -> LowResolution:
        """Two sites: ``name``, and ``name_noised`` given it."""
        low = numpyro.sample(name, prior)
        alpha, sigma = scales(self.log_snr)
        noised = numpyro.sample(f"{name}_noised", priors.Gaussian(alpha * low, sigma**2))
        return LowResolution(jnp.asarray(noised), self.log_snr)


class Truncated(Augmentation):
    """Truncated conditioning augmentation: the reverse steps of the stage below end at the level.

    The noised low resolution has the same law as by `Gaussian`, where the prior is exact; the steps
    below that level, which would make the clean one, are saved, and there is no clean one.

    Attributes:
        log_snr: at which the reverse steps end.
    """

    def draw(self, key: PRNGKeyArray, prior: Prior) -> LowResolution:
        """A draw at the level."""
        return LowResolution(at_level(prior, self.log_snr).sample(key), self.log_snr)

    def declare(self, name: str, prior: Prior) -> LowResolution:
        """One site, ``name_noised``."""
        noised = numpyro.sample(f"{name}_noised", at_level(prior, self.log_snr))
        return LowResolution(jnp.asarray(noised), self.log_snr)
