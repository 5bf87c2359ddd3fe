"""Founders, and the variance of the evidence that they give."""

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff.smc import count_founders, evidence_variance, particle_filter
from tests.smc.models import LinearGaussian, observations


def test_count_founders():
    founders = jnp.array([0, 0, 3, 3, 3, 7, 7, 7])
    assert count_founders(founders) == 3
    assert count_founders(founders, is_sorted=True) == 3
    assert count_founders(jnp.array([5, 0, 5, 1, 1, 0])) == 3


def test_without_resampling_it_is_the_variance_of_importance_sampling():
    log_weights = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (3, 50)))
    founders = jnp.broadcast_to(jnp.arange(50), (3, 50))
    variance = evidence_variance(log_weights, founders, jnp.zeros((3, 4), bool))
    relative = 50 * np.exp(np.asarray(log_weights))
    np.testing.assert_allclose(variance, relative.var(axis=1, ddof=1) / 50, rtol=1e-3)


def test_variance_of_the_evidence_from_one_run():
    # Over 400 runs the mean estimate and the actual relative variance have standard errors of
    # about 4 % and 7 % (the latter's tails are heavier than normal): 30 % is over three of them.
    y = observations(8)
    run = jax.jit(
        lambda key, model: particle_filter(
            key, model, 200, 7, num_chains=400, resampling="multinomial", ess_threshold=1.0
        )
    )
    result = run(jax.random.key(1), LinearGaussian(y))
    estimates = evidence_variance(result.log_weights, result.founders, result.resampled)
    ratio = np.exp(np.asarray(result.log_evidence, float) - float(result.log_evidence.mean()))
    actual = ratio.var() / ratio.mean() ** 2
    assert 0.7 < float(estimates.mean()) / actual < 1.3
