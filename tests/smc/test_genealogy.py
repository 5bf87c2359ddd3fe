"""Founders, and the standard error of the log evidence that they give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.smc import count_founders, evidence_variance, particle_filter
from tests.smc.models import LinearGaussian, observations


def test_count_founders():
    founders = jnp.array([0, 0, 3, 3, 3, 7, 7, 7])
    assert count_founders(founders) == 3
    assert count_founders(founders, is_sorted=True) == 3
    assert count_founders(jnp.array([5, 0, 5, 1, 1, 0])) == 3


def test_without_resampling_it_is_the_variance_of_importance_sampling():
    log_weights = jax.nn.log_softmax(0.3 * jax.random.normal(jax.random.key(0), (3, 500)))
    founders = jnp.broadcast_to(jnp.arange(500), (3, 500))
    variance = evidence_variance(log_weights, founders, jnp.zeros(3))
    relative = 500 * np.exp(np.asarray(log_weights))
    np.testing.assert_allclose(variance, relative.var(axis=1, ddof=1) / 500, rtol=2e-3)


@pytest.mark.parametrize("left", [1, 9, 10])
def test_few_founders_cannot_tell(left):
    equal = jnp.full((200,), -jnp.log(200.0))
    variance = evidence_variance(equal, jnp.arange(200) * left // 200, jnp.float32(0.0))
    assert np.isnan(variance) == (left < 10)


@pytest.mark.parametrize("effective", [4, 6])
def test_few_effective_founders_cannot_tell(effective):
    """All 200 survive, and all but some have next to no weight."""
    log_weights = jax.nn.log_softmax(jnp.where(jnp.arange(200) < effective, 0.0, -20.0))
    variance = evidence_variance(log_weights, jnp.arange(200), jnp.float32(0.0))
    assert np.isnan(variance) == (effective < 5)


def test_resampling_of_equal_weights_is_no_variance():
    """It brings founders together, and the evidence is known for certain."""

    class Free(LinearGaussian):
        def log_potential(self, t, prev, particle):
            return jnp.float32(0.0)

    result = particle_filter(
        jax.random.key(0), Free(jnp.zeros(9)), 400, 8, num_chains=4, ess_threshold=1.0,
        resampling="multinomial",
    )  # fmt: skip
    assert np.all(np.asarray(result.num_founders)[:, -1] < 200)
    errors = np.asarray(result.log_evidence_se)
    assert np.all(np.isnan(errors) | (errors < 1e-3))


@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_standard_error_of_the_log_evidence_from_one_run(resampling, threshold):
    """The spread over 200 runs is known to 5 %, and the mean of their errors better than that."""
    y = observations(8)
    run = jax.jit(
        lambda key, model: particle_filter(
            key, model, 300, 7, num_chains=200, resampling=resampling, ess_threshold=threshold
        )
    )
    result = run(jax.random.key(1), LinearGaussian(y))
    errors, spread = np.asarray(result.log_evidence_se), float(result.log_evidence.std(ddof=1))
    assert not np.any(np.isnan(errors))
    assert 0.8 < errors.mean() / spread < 1.25
    assert errors.std() < 0.3 * spread


def test_weights_off_have_no_error():
    model = LinearGaussian(observations(4))
    result = particle_filter(jax.random.key(0), model, 50, 3, weighted=False)
    assert np.isnan(result.log_evidence) and np.isnan(result.log_evidence_se)
