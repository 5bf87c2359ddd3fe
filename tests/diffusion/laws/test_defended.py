"""The defensive mixture of a changed kernel and the kernel itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from smcdiff.diffusion.laws import Defended, Mixture, Tilted
from tests.diffusion.laws.mixtures import (
    NUM,
    covariances_of,
    draws,
    make,
    means_of,
)

GRADIENT = np.float32([2.0, -1.0, 1.5])


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_draws_and_ratio(share):
    mixture = make(1, 0)
    covariance = covariances_of(mixture)[0]
    mean = means_of(mixture)[0]

    def law_of(mixture):
        tilted = Tilted.of(mixture, jnp.asarray(GRADIENT))
        return Defended(tilted, mixture, (jnp.log(1.0 - share), jnp.log(share)))

    x, log_ratio, log_p = draws(law_of, mixture, jax.random.key(2))
    moved = multivariate_normal(mean + covariance @ GRADIENT, covariance).pdf(x)
    log_q = np.log((1.0 - share) * moved + share * np.exp(log_p))
    np.testing.assert_allclose(log_ratio, log_p - log_q, atol=2e-4)
    if share:
        assert log_ratio.max() <= -np.log(share) + 1e-5
    expected = mean + (1.0 - share) * covariance @ GRADIENT
    assert np.all(np.abs(x.mean(0) - expected) < 4 * np.std(x, axis=0) / NUM**0.5)


def test_of_a_dirac_nothing_is_to_be_weighed():
    dirac = Mixture(jnp.zeros(1), jnp.ones((1, 3)), jnp.zeros((1, 1)))

    @jax.jit
    def drawn(dirac):
        tilted = Tilted.of(dirac, jnp.asarray(GRADIENT))
        law = Defended(tilted, dirac, (jnp.log(0.7), jnp.log(0.3)))
        x = law.sample(jax.random.key(0))
        return x, law.log_ratio(x)

    x, log_ratio = drawn(dirac)
    np.testing.assert_array_equal(x, 1.0)
    np.testing.assert_allclose(log_ratio, 0.0, atol=1e-6)
