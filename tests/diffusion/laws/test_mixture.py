"""Mixtures: density and draws against dense Gaussian algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.laws.mixtures import (
    CASES,
    NUM,
    covariances_of,
    log_prob_of,
    make,
    means_of,
)


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_log_prob_and_sample(num_components, rank):
    mixture = make(num_components, rank)
    x = jax.vmap(mixture.sample)(jax.random.split(jax.random.key(1), NUM))
    expected = log_prob_of(mixture.log_weights, means_of(mixture), covariances_of(mixture), x)
    np.testing.assert_allclose(jax.vmap(mixture.log_prob)(x), expected, rtol=1e-3, atol=1e-4)
    standard_error = jnp.std(x, axis=0) / NUM**0.5
    assert jnp.all(jnp.abs(x.mean(0) - mixture.mean) < 4 * standard_error)
