"""Tilted laws against dense Gaussian algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from smcdiff.diffusion.laws import Mixture, Tilted
from tests.diffusion.laws.mixtures import (
    CASES,
    NUM,
    SIZE,
    covariances_of,
    draws,
    log_prob_of,
    make,
    means_of,
)


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_tilted_draws_and_ratio(num_components, rank):
    """q is the mixture with means mu + V g and weights w exp(g.mu + g.V g / 2), normalised."""
    mixture, gradient = make(num_components, rank), np.float32([0.5, -1.0, 0.8])

    def law_of(mixture):
        return Tilted.of(mixture, jnp.asarray(gradient))

    x, log_ratio, log_p = draws(law_of, mixture, jax.random.key(2))
    covariances = covariances_of(mixture)
    means = means_of(mixture) + np.einsum("kde,e->kd", covariances, gradient)
    exponents = means_of(mixture) @ gradient + 0.5 * (means - means_of(mixture)) @ gradient
    log_weights = log_softmax(np.asarray(mixture.log_weights) + exponents)
    log_q = log_prob_of(log_weights, means, covariances, x)
    np.testing.assert_allclose(log_ratio, log_p - log_q, atol=2e-4)
    expected = np.exp(log_weights) @ means
    assert np.all(np.abs(x.mean(0) - expected) < 4 * np.std(x, axis=0) / NUM**0.5)


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_tilt_is_as_long_as_there_is_room(num_components, rank):
    mixture, gradient = make(num_components, rank), np.float32([0.5, -1.0, 0.8])
    within = np.einsum("kde,d,e->k", covariances_of(mixture), gradient, gradient)
    gain = np.exp(np.asarray(mixture.log_weights)) @ within

    @jax.jit
    def both(room, step):
        law = Tilted.of(mixture, jnp.asarray(gradient), room)
        plain = Tilted.of(mixture, step * jnp.asarray(gradient))
        return [law.gradient, plain.gradient], [law.log_weights, plain.log_weights]

    for room, step in ((0.25 * gain, 0.25), (2.0 * gain, 1.0), (0.0, 0.0)):
        gradients, log_weights = both(room, step)
        np.testing.assert_allclose(*gradients, rtol=1e-5)
        np.testing.assert_allclose(*log_weights, atol=1e-5)


def test_tilt_of_a_dirac_without_room():
    dirac = Mixture(jnp.zeros(1), jnp.ones((1, SIZE)), jnp.zeros((1, 1)))
    law = Tilted.of(dirac, jnp.ones(SIZE), 0.0)
    np.testing.assert_array_equal(law.sample(jax.random.key(0)), jnp.ones(SIZE))
    assert law.log_ratio(jnp.ones(SIZE)) == 0.0
