"""Chains of one filter: what they share, and what they must not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.base.module import Module
from smcdiff.errors import InputError
from smcdiff.smc import ParticleFilter, resampling
from tests.smc.models import LinearGaussian, log_normal, observations, run


def test_two_chains_resample_only_where_one_of_them_must():
    calls = []

    def counting(key, weights, num_samples):
        jax.debug.callback(lambda: calls.append(1))
        return resampling.systematic(key, weights, num_samples)

    model = LinearGaussian(observations(21))
    result = run(jax.random.key(1), model, 100, 20, num_chains=2, resampling=counting)
    jax.effects_barrier()
    resampled = np.asarray(result.resampled)
    assert len(calls) in (resampled.any(axis=0).sum(), 2 * resampled.any(axis=0).sum())
    assert 0 < resampled.any(axis=0).sum() < 15
    assert (resampled[0] != resampled[1]).any()  # some steps resample one chain and keep the other


def test_a_chain_s_numbers_do_not_depend_on_the_others():
    y = observations(21)
    keys = jax.random.split(jax.random.key(1))
    settings = {"ess_threshold": 0.5, "store_ancestors": True}
    both = run(jax.random.key(1), LinearGaussian(y), 100, 20, num_chains=2, **settings)
    for chain in range(2):
        one = run(keys[chain], LinearGaussian(y), 100, 20, **settings)
        np.testing.assert_array_equal(one.ancestors, both.ancestors[chain])
        np.testing.assert_allclose(one.particles, both.particles[chain], rtol=1e-6)
        np.testing.assert_allclose(one.log_evidence, both.log_evidence[chain], rtol=1e-6)


class Shifted(Module):
    """A linear-Gaussian model whose data differ between chains, with a leaf that they share."""

    y: jax.Array
    noise: jax.Array

    def init(self, key):
        return jax.random.normal(key)

    def step(self, key, t, prev):
        return 0.9 * prev + 0.5 * jax.random.normal(key)

    def log_potential(self, t, prev, particle):
        return log_normal(self.y[t], particle, self.noise)


@pytest.mark.parametrize("batch_size", [None, 30, 250])
def test_models_that_differ_between_chains(batch_size):
    ys = jnp.stack([observations(11, seed) for seed in range(3)])
    settings = ParticleFilter(100, 3, batch_size=batch_size)
    model, axes = Shifted(ys, jnp.float32(0.5)), Shifted(0, None)
    result = jax.jit(lambda k, m: settings.run(k, m, 10, chain_axes=axes))(jax.random.key(2), model)
    keys = jax.random.split(jax.random.key(2), 3)
    for chain in range(3):
        one = run(keys[chain], LinearGaussian(ys[chain]), 100, 10)
        np.testing.assert_allclose(result.log_evidence[chain], one.log_evidence, rtol=1e-5)
        np.testing.assert_allclose(result.particles[chain], one.particles, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("axes", "num_chains", "message"),
    [
        (Shifted(0, None), None, "wants num_chains"),
        (Shifted(0, None), 3, r"have shapes \[\(2, 4\)\]; each needs a leading axis"),
        (Shifted(1, None), 2, "holds 0 and None only"),
        ((0, None), 2, "no tree prefix of the model"),
    ],
)
def test_wrong_axes_of_chains(axes, num_chains, message):
    model = Shifted(jnp.zeros((2, 4)), jnp.float32(1))
    with pytest.raises(InputError, match=message):
        ParticleFilter(4, num_chains).run(jax.random.key(0), model, 3, chain_axes=axes)
