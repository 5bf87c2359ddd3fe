"""What a noise schedule is: the forward process ``x_t = alpha(t) x_0 + sigma(t) eps``.

Everything downstream is expressed through the log signal-to-noise ratio

    lambda(t) = log(alpha(t)^2 / sigma(t)^2),

which decreases in t. Noise levels are in the units of the data that the prior was trained on.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smcdiff.base._numbers import Scalar, Values
from smcdiff.base.module import Module

TIMESTEPS = 1000.0
"""DDPM's time steps in one unit of a schedule's time: networks embed ``TIMESTEPS * t``."""
_BISECTIONS = 64


class Level(NamedTuple):
    """The noise level at one time, or at several.

    Attributes:
        time: t.
        alpha: signal scale alpha(t).
        sigma: noise standard deviation sigma(t), in data units.
        log_snr: lambda(t) = log(alpha^2 / sigma^2); infinite where there is no noise.
        index: its place on the sampler's grid: 0 is t_max, the last is free of noise; -1 off a
            grid.
    """

    time: Float[Array, "*steps"]
    alpha: Float[Array, "*steps"]
    sigma: Float[Array, "*steps"]
    log_snr: Float[Array, "*steps"]
    index: Int[Array, "*steps"]

    @property
    def is_clean(self) -> Bool[Array, "*steps"]:
        """Whether there is no noise: the level of x_0."""
        return jnp.isposinf(self.log_snr)

    @classmethod
    def clean(cls, index: Int[Array, ""] | int = -1) -> Level:
        """The level of x_0."""
        zero, one = jnp.zeros(()), jnp.ones(())
        return cls(zero, one, zero, jnp.asarray(jnp.inf), jnp.asarray(index, jnp.int32))


class Schedule(Module):
    """A noise schedule: a subclass gives `alpha`, `sigma` and the ends of its times.

    Alpha and sigma are elementwise in t, continuous, with alpha(0) = 1 and sigma(0) = 0; their
    ratio decreases. Where an inverse of the log-SNR is known in closed form, give `time` too::

        class Mine(Schedule):
            t_min: float = 0.01
            t_max: float = 1.0

            def alpha(self, t):
                return 1.0 - t

            def sigma(self, t):
                return t

    Attributes:
        t_min: smallest noisy time of a grid; the last step goes from there to 0.
        t_max: largest time, where sampling starts.
    """

    t_min: Scalar = dataclasses.field(kw_only=True)
    t_max: Scalar = dataclasses.field(kw_only=True)

    def alpha(self, t: Values) -> Float[Array, "*steps"]:
        """Scale of the signal at time t."""
        raise NotImplementedError(f"{type(self).__name__} must define alpha")

    def sigma(self, t: Values) -> Float[Array, "*steps"]:
        """Standard deviation of the noise at time t, in data units."""
        raise NotImplementedError(f"{type(self).__name__} must define sigma")

    def log_snr(self, t: Values) -> Float[Array, "*steps"]:
        """Log signal-to-noise ratio log(alpha^2 / sigma^2); infinite at t = 0."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time(self, log_snr: Values) -> Float[Array, "*steps"]:
        """The time of a log-SNR: by bisection between 0 and ``t_max``, unless a subclass knows it.

        Values beyond the ends give the ends.
        """

        def halve(_, ends):
            low, high = ends
            middle = 0.5 * (low + high)
            noisier = self.log_snr(middle) < log_snr
            return jnp.where(noisier, low, middle), jnp.where(noisier, middle, high)

        first = jnp.zeros_like(log_snr), jnp.full_like(log_snr, self.t_max)
        return jax.lax.fori_loop(0, _BISECTIONS, halve, first)[1]

    def level(self, t: Values) -> Level:
        """The noise levels at some times, off a grid.

        Args:
            t: any shape, in the schedule's time.
        """
        t = jnp.asarray(t, jnp.result_type(float))
        index = jnp.full(t.shape, -1, jnp.int32)
        return Level(t, self.alpha(t), self.sigma(t), self.log_snr(t), index)

    @property
    def noisiest(self) -> Level:
        """The level at ``t_max``."""
        return self.level(self.t_max)
