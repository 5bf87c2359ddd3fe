"""The noise schedules of the literature, in continuous time.

References:
    Song et al. (2021), Score-based generative modeling through SDEs (VP, VE).
    Ho et al. (2020), Denoising diffusion probabilistic models (linear beta).
    Nichol and Dhariwal (2021), Improved DDPM (cosine).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base._numbers import Scalar, Values
from smcdiff.diffusion.schedules.base import Schedule


class OrnsteinUhlenbeck(Schedule):
    """Variance preserving, ``alpha = exp(-t)``: the OU process dx = -x dt + sqrt(2) dW.

    Attributes:
        t_min: smallest noisy time; sigma is about sqrt(2 t_min) there.
        t_max: horizon T.
    """

    t_min: Scalar = dataclasses.field(default=5e-5, kw_only=True)
    t_max: Scalar = dataclasses.field(default=5.0, kw_only=True)

    def alpha(self, t: Values) -> Float[Array, "*steps"]:
        """Signal scale exp(-t)."""
        return jnp.exp(-t)

    def sigma(self, t: Values) -> Float[Array, "*steps"]:
        """Noise standard deviation sqrt(1 - exp(-2t))."""
        return jnp.sqrt(-jnp.expm1(-2.0 * t))

    def time(self, log_snr: Values) -> Float[Array, "*steps"]:
        """Inverse of the log-SNR."""
        return 0.5 * jax.nn.softplus(-log_snr)


class VarianceExploding(Schedule):
    """Variance exploding, ``alpha = 1, sigma = t``: time *is* the noise standard deviation.

    Attributes:
        t_min: smallest noise standard deviation, in data units.
        t_max: largest noise standard deviation, in data units.
    """

    t_min: Scalar = dataclasses.field(default=0.01, kw_only=True)
    t_max: Scalar = dataclasses.field(default=100.0, kw_only=True)

    def alpha(self, t: Values) -> Float[Array, "*steps"]:
        """Signal scale 1."""
        return jnp.ones_like(t)

    def sigma(self, t: Values) -> Float[Array, "*steps"]:
        """Noise standard deviation t."""
        return jnp.asarray(t)

    def time(self, log_snr: Values) -> Float[Array, "*steps"]:
        """Inverse of the log-SNR."""
        return jnp.exp(-0.5 * log_snr)


class LinearBeta(Schedule):
    """DDPM's linear beta schedule in continuous time, variance preserving.

    ``log alpha(t) = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2`` on t in (0, 1]. The 1000-step
    DDPM with beta from 1e-4 to 0.02 is beta_min = 0.1, beta_max = 20; `from_betas` takes a DDPM's
    own array.

    Attributes:
        beta_min: rate at t = 0.
        beta_max: rate at t = 1.
        t_min: smallest noisy time.
        t_max: horizon T.
    """

    beta_min: Scalar = 0.1
    beta_max: Scalar = 20.0
    t_min: Scalar = dataclasses.field(default=1e-3, kw_only=True)
    t_max: Scalar = dataclasses.field(default=1.0, kw_only=True)

    def _minus_two_log_alpha(self, t):
        return 0.5 * t**2 * (self.beta_max - self.beta_min) + t * self.beta_min

    def alpha(self, t: Values) -> Float[Array, "*steps"]:
        """Signal scale."""
        return jnp.exp(-0.5 * self._minus_two_log_alpha(t))

    def sigma(self, t: Values) -> Float[Array, "*steps"]:
        """Noise standard deviation sqrt(1 - alpha^2)."""
        return jnp.sqrt(-jnp.expm1(-self._minus_two_log_alpha(t)))

    def time(self, log_snr: Values) -> Float[Array, "*steps"]:
        """Inverse of the log-SNR."""
        target = jax.nn.softplus(-log_snr)
        slope = self.beta_max - self.beta_min
        return 2.0 * target / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2.0 * slope * target))


class Cosine(Schedule):
    """Cosine schedule, variance preserving: ``alpha = cos(pi t / 2), sigma = sin(pi t / 2)``.

    The defaults span log-SNR from 9.2 (sigma = 0.01) to -9.2 (alpha = 0.01).

    Attributes:
        t_min: smallest noisy time, in (0, 1).
        t_max: horizon T, in (0, 1).
    """

    t_min: Scalar = dataclasses.field(default=0.0063664, kw_only=True)
    t_max: Scalar = dataclasses.field(default=0.9936336, kw_only=True)

    def alpha(self, t: Values) -> Float[Array, "*steps"]:
        """Signal scale cos(pi t / 2)."""
        return jnp.cos(0.5 * jnp.pi * t)

    def sigma(self, t: Values) -> Float[Array, "*steps"]:
        """Noise standard deviation sin(pi t / 2)."""
        return jnp.sin(0.5 * jnp.pi * t)

    def time(self, log_snr: Values) -> Float[Array, "*steps"]:
        """Inverse of the log-SNR."""
        return 2.0 / jnp.pi * jnp.arctan(jnp.exp(-0.5 * log_snr))
