"""Conditioned laws against dense Gaussian algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import multivariate_normal

from smcdiff.diffusion.laws import Conditioned, Mixture, Tilted
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
def test_conditioned_draws_and_ratio(num_components, rank):
    mixture = make(num_components, rank)
    matrix = np.random.default_rng(3).normal(size=(2, SIZE)).astype(np.float32)
    residual, noise = np.float32([0.7, -0.4]), np.float32([[0.5, 0.1], [0.1, 0.3]])

    def law_of(mixture):
        return Conditioned.of(mixture, *map(jnp.asarray, (matrix, residual, noise)))

    x, log_ratio, log_p = draws(law_of, mixture, jax.random.key(4))
    covariances, log_priors = covariances_of(mixture), np.asarray(mixture.log_weights)
    centre = np.exp(log_priors) @ means_of(mixture)
    joint = np.einsum("md,kde,ne->kmn", matrix, covariances, matrix) + noise[None]
    gains = np.einsum("kde,me,kmn->kdn", covariances, matrix, np.linalg.inv(joint))
    misfits = residual[None] - (means_of(mixture) - centre[None]) @ matrix.T
    means = means_of(mixture) + np.einsum("kdm,km->kd", gains, misfits)
    posterior = covariances - np.einsum("kdm,me,kef->kdf", gains, matrix, covariances)
    log_norm = [
        multivariate_normal(np.zeros(2), j).logpdf(m) for j, m in zip(joint, misfits, strict=True)
    ]
    marginal = np.log(np.sum(np.exp(log_priors + log_norm)))
    np.testing.assert_allclose(law_of(mixture).log_marginal, marginal, rtol=1e-4)
    log_weights = log_softmax(log_priors + log_norm)
    log_q = log_prob_of(log_weights, means, posterior, x)
    np.testing.assert_allclose(log_ratio, log_p - log_q, atol=2e-3)
    expected = np.exp(log_weights) @ means
    assert np.all(np.abs(x.mean(0) - expected) < 4 * np.std(x, axis=0) / NUM**0.5)
    weights, apart = np.exp(log_weights), means - expected[None]
    covariance = np.einsum("k,kde->de", weights, posterior)
    covariance += np.einsum("k,kd,ke->de", weights, apart, apart)
    # A sample variance of a Gaussian has the relative error sqrt(2 / n).
    assert np.all(np.abs(np.cov(x.T) - covariance) < 5 * (2 / NUM) ** 0.5 * covariance.max())


def test_changes_are_finite_at_a_dirac():
    """The last step of DDIM has no variance: every change returns the mean with log ratio 0."""

    @jax.jit
    def found(key):
        mixture = Mixture(jnp.zeros(1), jnp.ones((1, SIZE)), jnp.zeros((1, 1)))
        tilted = Tilted.of(mixture, jnp.full(SIZE, 5.0))
        conditioned = Conditioned.of(mixture, jnp.eye(SIZE), jnp.ones(SIZE), jnp.eye(SIZE))
        draws = [law.sample(key) for law in (tilted, conditioned)]
        return (draws[0], tilted.log_ratio(draws[0])), (draws[1], conditioned.log_ratio(draws[1]))

    for x, log_ratio in found(jax.random.key(0)):
        np.testing.assert_allclose(x, 1.0)
        np.testing.assert_allclose(log_ratio, 0.0, atol=1e-6)
