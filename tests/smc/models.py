"""State-space models shared by the tests of the filter."""

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff.base.module import Module

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


class Blank(LinearGaussian):
    """The same model with one method for all steps, the first one included."""

    def blank(self):
        return jnp.zeros(())

    def propose(self, key, t, prev):
        x = jax.lax.cond(
            t == 0, lambda: self.init(key), lambda: super(Blank, self).step(key, t, prev)
        )
        return x, self.log_potential(t, prev, x)


class Fused(LinearGaussian):
    """The same model through the fused methods."""

    def start(self, key):
        x = self.init(key)
        return x, self.log_potential(0, None, x)

    def propose(self, key, t, prev):
        x = super().step(key, t, prev)
        return x, self.log_potential(t, prev, x)

    def step(self, key, t, prev):
        raise AssertionError("propose takes precedence")


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
    return jax.random.normal(jax.random.key(seed), (num,))
