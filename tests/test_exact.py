"""The oracle against dense Gaussian algebra and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from smcdiff import exact, priors
from smcdiff.errors import InputError

PRIOR = priors.GaussianMixture(
    jnp.array([0.3, 0.7]),
    jnp.array([[-1.0, 0.5], [1.5, 0.0]]),
    jnp.array([[[1.0, 0.6], [0.6, 0.8]], [[0.3, -0.1], [-0.1, 0.5]]]),
)
MATRIX = jnp.array([[1.0, -0.5]])
POSTERIOR = exact.linear_gaussian_posterior(PRIOR, MATRIX, jnp.array([0.4]), 0.3)


def _grid():
    """Nodes of a 2-D quadrature, and the unnormalised posterior density there."""
    axis = np.linspace(-7, 7, 561)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    covariances = PRIOR.component_covariances()
    density = sum(
        float(w) * multivariate_normal(m, c).pdf(points)
        for w, m, c in zip([0.3, 0.7], PRIOR.means, covariances, strict=True)
    )
    likelihood = multivariate_normal(0.4, 0.09).pdf(points @ np.asarray(MATRIX)[0])
    return points, density * likelihood * (axis[1] - axis[0]) ** 2


def test_evidence_mean_covariance_by_quadrature():
    points, mass = _grid()
    np.testing.assert_allclose(POSTERIOR.log_evidence, np.log(mass.sum()), atol=1e-4)
    mean = mass @ points / mass.sum()
    np.testing.assert_allclose(POSTERIOR.mean, mean, atol=1e-4)
    covariance = (points - mean).T @ (mass[:, None] * (points - mean)) / mass.sum()
    np.testing.assert_allclose(POSTERIOR.covariance_matrix(), covariance, atol=1e-4)


def test_log_prob_is_normalised_density():
    points, mass = _grid()
    cell = (14 / 560) ** 2
    chosen = points[::5000], mass[::5000]
    expected = np.log(chosen[1] / mass.sum() / cell + 1e-300)
    keep = expected > -25
    np.testing.assert_allclose(POSTERIOR.log_prob(chosen[0])[keep], expected[keep], atol=1e-3)


def test_draws():
    """4 standard errors of the mean, 5 % of the largest variance."""
    x = POSTERIOR.sample(jax.random.key(0), (40_000,))
    assert jnp.all(jnp.abs(x.mean(0) - POSTERIOR.mean) < 4 * x.std(0) / 40_000**0.5)
    np.testing.assert_allclose(jnp.cov(x.T), POSTERIOR.covariance_matrix(), atol=0.05)


def test_operator_and_matrix_agree():
    by_operator = exact.linear_gaussian_posterior(
        PRIOR, lambda x: MATRIX @ x, jnp.array([0.4]), 0.3
    )
    np.testing.assert_allclose(by_operator.log_evidence, POSTERIOR.log_evidence, rtol=1e-6)


def test_survives_jit():
    evidence = jax.jit(
        lambda prior, y: exact.linear_gaussian_posterior(prior, MATRIX, y, 0.3).log_evidence
    )(PRIOR, jnp.array([0.4]))
    np.testing.assert_allclose(evidence, POSTERIOR.log_evidence, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_bad_input():
    with pytest.raises(InputError, match="d_y, 2"):
        exact.linear_gaussian_posterior(PRIOR, jnp.ones((1, 3)), [0.4], 0.3)
    with pytest.raises(InputError, match="the callable is not linear"):
        exact.linear_gaussian_posterior(PRIOR, lambda x: MATRIX @ x + 0.1, [0.4], 0.3)
    with pytest.raises(InputError, match="y has 2 entries"):
        exact.linear_gaussian_posterior(PRIOR, MATRIX, [0.4, 0.1], 0.3)
    with pytest.raises(InputError, match="exact posterior"):
        exact.linear_gaussian_posterior(object(), MATRIX, [0.4], 0.3)
    with pytest.raises(InputError, match="y has NaN"):
        exact.linear_gaussian_posterior(PRIOR, MATRIX, [jnp.nan], 0.3)
    with pytest.raises(InputError, match="noise is negative"):
        exact.linear_gaussian_posterior(PRIOR, MATRIX, [0.4], -0.3)
    with pytest.raises(InputError, match="singular in float32.*jax_enable_x64"):
        exact.linear_gaussian_posterior(PRIOR, jnp.repeat(MATRIX, 2, 0), [0.4, 0.4], 1e-5)
    with pytest.raises(InputError, match="singular in float32.*jax_enable_x64"):
        wide, rows = priors.Gaussian(jnp.zeros(2), 1e6), jnp.array([[2.0, 1.0], [1, 2], [1, 1]])
        exact.linear_gaussian_posterior(wide, rows, jnp.ones(3), 0.3)
    with pytest.raises(InputError, match="noise has shape"):
        exact.linear_gaussian_posterior(PRIOR, MATRIX, [0.4], [0.3, 0.1])


@pytest.mark.parametrize("noise", [1e-2, 1e-4])
def test_covariance_keeps_the_digits_of_a_small_noise(noise):
    """Against float64: in the direction that is seen the variance is that of the noise."""
    posterior = exact.linear_gaussian_posterior(PRIOR, MATRIX, jnp.array([0.4]), noise)
    matrix = np.asarray(MATRIX, np.float64)
    for found, prior in zip(
        posterior.component_covariances(), np.asarray(PRIOR.component_covariances()), strict=True
    ):
        expected = np.linalg.inv(np.linalg.inv(prior.astype(float)) + matrix.T @ matrix / noise**2)
        seen = matrix[0] / np.linalg.norm(matrix)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        # Read off a matrix of size 1, a variance is good to 1e-7.
        np.testing.assert_allclose(seen @ found @ seen, seen @ expected @ seen, atol=2e-7)
