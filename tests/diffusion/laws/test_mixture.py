"""Mixtures: density and draws against dense Gaussian algebra."""

import jax
import numpy as np
import pytest

from tests.diffusion.laws.mixtures import (
    CASES,
    NUM,
    covariances_of,
    draws,
    log_prob_of,
    make,
    means_of,
)


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_log_prob_and_sample(num_components, rank):
    mixture = make(num_components, rank)
    x, _, log_p = draws(lambda mixture: mixture, mixture, jax.random.key(1))
    expected = log_prob_of(mixture.log_weights, means_of(mixture), covariances_of(mixture), x)
    np.testing.assert_allclose(log_p, expected, rtol=1e-3, atol=1e-4)
    standard_error = np.std(x, axis=0) / NUM**0.5
    mean = jax.jit(lambda mixture: mixture.mean)(mixture)
    assert np.all(np.abs(x.mean(0) - mean) < 4 * standard_error)
