"""A model that learns from its particles is handed their weighted means."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.smc import ParticleFilter


class Particle(NamedTuple):
    x: jax.Array
    told: jax.Array


class Learning:
    """A random walk, weighed by N(x; 1, 1), that keeps the means that it was told."""

    def init(self, key):
        return Particle(jax.random.normal(key), jnp.zeros(2))

    def statistics(self, particle):
        return jnp.stack([particle.x, particle.x**2])

    def step(self, key, t, prev, means):
        return Particle(prev.x + 0.1 * jax.random.normal(key), means)

    def log_potential(self, t, prev, particle):
        return -0.5 * (particle.x - 1.0) ** 2


@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"num_chains": 2}])
def test_means_are_those_of_the_weighted_particles(options):
    particles = ParticleFilter(16, ess_threshold=0.0, **options)
    before = particles.init(jax.random.key(0), Learning())
    after, _ = particles.step(before, Learning())
    weights, x = np.exp(before.log_weights), np.asarray(before.particles.x)
    expected = np.stack([np.sum(weights * x, axis=-1), np.sum(weights * x**2, axis=-1)], axis=-1)
    told = np.asarray(after.particles.told)
    np.testing.assert_allclose(told, np.broadcast_to(expected[..., None, :], told.shape), rtol=1e-5)


def test_after_resampling():
    """The means are over the particles that move on."""
    particles = ParticleFilter(16, ess_threshold=1.0, store_ancestors=True)
    before = particles.init(jax.random.key(0), Learning())
    after, info = particles.step(before, Learning())
    kept = np.asarray(before.particles.x)[np.asarray(info.ancestors)]
    np.testing.assert_allclose(after.particles.told[0], [kept.mean(), (kept**2).mean()], rtol=1e-5)
