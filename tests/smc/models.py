"""State-space models shared by the tests of the filter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff.base.module import Module
from smcdiff.smc import particle_filter

COEFFICIENT, STATE_NOISE, NOISE = 0.9, 0.5, 0.5


def log_normal(x, mean, scale):
    """Log density of a normal distribution."""
    return -0.5 * ((x - mean) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


class LinearGaussian(Module):
    """x_0 ~ N(0, 1), x_t = 0.9 x_{t-1} + N(0, 0.25), y_t = x_t + N(0, 0.25)."""

    y: jax.Array

    def init(self, key):
        return jax.random.normal(key)

    def step(self, key, t, prev):
        return COEFFICIENT * prev + STATE_NOISE * jax.random.normal(key)

    def log_potential(self, t, prev, particle):
        return log_normal(self.y[t], particle, NOISE)


class FromBlank(LinearGaussian):
    """The same model one step later: it starts blank, so that one method moves all particles."""

    def init(self, key):
        return jnp.zeros(())

    def step(self, key, t, prev):
        draw, move = super().init, super().step
        return jax.lax.cond(t == 1, lambda: draw(key), lambda: move(key, t - 1, prev))

    def log_potential(self, t, prev, particle):
        return jnp.float32(0) if prev is None else super().log_potential(t - 1, prev, particle)


class Scripted(Module):
    """A walk that goes nowhere, with log weights read from a table (steps + 1, particles).

    A particle is its number in the table; it keeps it.
    """

    table: jax.Array

    def init(self, key):
        return jax.random.randint(key, (), 0, self.table.shape[1])

    def step(self, key, t, prev):
        return prev

    def log_potential(self, t, prev, particle):
        return self.table[t, particle]


def kalman_log_likelihood(y):
    """Exact log p(y) of `LinearGaussian`, in float64."""
    mean, variance, total = 0.0, 1.0, 0.0
    for t, value in enumerate(np.asarray(y, float)):
        if t:
            mean, variance = COEFFICIENT * mean, COEFFICIENT**2 * variance + STATE_NOISE**2
        spread = variance + NOISE**2
        total -= 0.5 * ((value - mean) ** 2 / spread + np.log(2 * np.pi * spread))
        gain = variance / spread
        mean, variance = mean + gain * (value - mean), (1 - gain) * variance
    return total


def observations(num, seed=1):
    """Data of about the model's own scale."""
    return jax.device_put(np.random.default_rng(seed).normal(size=num).astype(np.float32))


@functools.cache
def compiled(*args, **kwargs):
    """The filter with some settings; a threshold of each step is an argument."""

    def call(key, model, thresholds):
        options = kwargs if thresholds is None else {**kwargs, "ess_threshold": thresholds}
        return particle_filter(key, model, *args, **options)

    return jax.jit(call)


def run(key, model, *args, thresholds=None, **kwargs):
    """The filter, compiled once for equal settings and models of the same shapes."""
    return compiled(*args, **kwargs)(key, model, thresholds)
