"""Tilted laws against dense Gaussian algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.diffusion.laws import Mixture, Tilted
from tests.diffusion.laws.mixtures import (
    CASES,
    NUM,
    SIZE,
    covariances_of,
    log_prob_of,
    make,
    means_of,
)


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_tilted_draws_and_ratio(num_components, rank):
    """q is the mixture with means mu + V g and weights w exp(g.mu + g.V g / 2), normalised."""
    mixture, gradient = make(num_components, rank), jnp.array([0.5, -1.0, 0.8])
    keys = jax.random.split(jax.random.key(2), NUM)
    law = Tilted.of(mixture, gradient)
    x = jax.vmap(law.sample)(keys)
    log_ratio = jax.vmap(law.log_ratio)(x)
    covariances = covariances_of(mixture)
    means = means_of(mixture) + np.einsum("kde,e->kd", covariances, gradient)
    exponents = means_of(mixture) @ gradient + 0.5 * (means - means_of(mixture)) @ gradient
    log_weights = jax.nn.log_softmax(mixture.log_weights + exponents)
    log_q = log_prob_of(log_weights, means, covariances, x)
    np.testing.assert_allclose(log_ratio, jax.vmap(mixture.log_prob)(x) - log_q, atol=2e-4)
    expected = jnp.exp(log_weights) @ means
    assert jnp.all(jnp.abs(x.mean(0) - expected) < 4 * jnp.std(x, axis=0) / NUM**0.5)


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_tilt_is_as_long_as_there_is_room(num_components, rank):
    mixture, gradient = make(num_components, rank), jnp.array([0.5, -1.0, 0.8])
    within = np.einsum("kde,d,e->k", covariances_of(mixture), gradient, gradient)
    gain = float(jnp.exp(mixture.log_weights) @ within)
    for room, step in ((0.25 * gain, 0.25), (2.0 * gain, 1.0), (0.0, 0.0)):
        law, plain = Tilted.of(mixture, gradient, room), Tilted.of(mixture, step * gradient)
        np.testing.assert_allclose(law.gradient, plain.gradient, rtol=1e-5)
        np.testing.assert_allclose(law.log_weights, plain.log_weights, atol=1e-5)


def test_tilt_of_a_dirac_without_room():
    dirac = Mixture(jnp.zeros(1), jnp.ones((1, SIZE)), jnp.zeros((1, 1)))
    law = Tilted.of(dirac, jnp.ones(SIZE), 0.0)
    np.testing.assert_array_equal(law.sample(jax.random.key(0)), jnp.ones(SIZE))
    assert law.log_ratio(jnp.ones(SIZE)) == 0.0
