"""Low-rank conditioning against the dense algebra of `Conditioned`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.diffusion.laws import (
    Conditioned,
    DiagonalPlus,
    LowRank,
    LowRankConditioned,
    Mixture,
    SingularCoordinates,
)
from smcdiff.operators import Dense

SIZE, SEEN, RANK = 6, 4, 2
KEYS = jax.random.split(jax.random.key(0), 6)
DIRECTIONS = jnp.linalg.qr(jax.random.normal(KEYS[0], (SIZE, SIZE)))[0][:RANK]
MATRIX = jax.random.normal(KEYS[1], (SEEN, SIZE))
LEFT, VALUES, RIGHT = jnp.linalg.svd(MATRIX, full_matrices=False)
SYSTEM = SingularCoordinates(VALUES, Dense(RIGHT))
MEAN, RESIDUAL = jax.random.normal(KEYS[2], (SIZE,)), jax.random.normal(KEYS[3], (SEEN,))


def _matrix(base, *excess):
    return LowRank(jnp.array(base), DIRECTIONS, jnp.array(excess))


def _dense(low):
    return low.base * jnp.eye(SIZE) + (low.directions.T * low.excess[None]) @ low.directions


SLOPE, SPREAD = _matrix(0.7, 1.0, 0.2), _matrix(0.3, 0.5, 0.0)
COVARIANCES = {"isotropic": _matrix(0.5, 0.0, 0.0), "low-rank": _matrix(0.5, 0.8, 0.1)}


def _law(covariance, base):
    singular_residual = LEFT.T @ RESIDUAL
    columns = jax.vmap(SYSTEM.project)(DIRECTIONS).T
    return LowRankConditioned.of(
        base, covariance, SLOPE, SPREAD, singular_residual, SYSTEM, columns
    )


def test_diagonal_plus_is_its_dense_matrix():
    columns, excess = jax.random.normal(KEYS[4], (SEEN, RANK)), jnp.array([0.5, 2.0])
    diagonal = jnp.arange(1.0, SEEN + 1.0)
    made = DiagonalPlus.of(diagonal, columns, excess)
    dense = jnp.diag(diagonal) + (columns * excess[None]) @ columns.T
    np.testing.assert_allclose(made.solve(RESIDUAL), jnp.linalg.solve(dense, RESIDUAL), rtol=1e-4)
    np.testing.assert_allclose(made.log_det, jnp.linalg.slogdet(dense)[1], rtol=1e-5)
    draws = jax.vmap(made.sample)(jax.random.split(KEYS[5], 40_000))
    np.testing.assert_allclose(jnp.cov(draws.T), dense, atol=0.03 * jnp.max(dense))


@pytest.mark.parametrize("covariance", COVARIANCES.values(), ids=COVARIANCES)
def test_law_is_the_dense_conditional(covariance):
    """log p - log q point by point; moments of draws within 4 standard errors, or 3 %."""
    isotropic = covariance.excess[0] == 0
    basis = None if isotropic else jnp.linalg.qr(DIRECTIONS.T, mode="complete")[0][None]
    values = jnp.diag(basis[0].T @ _dense(covariance) @ basis[0]) if basis is not None else 0.5
    p = Mixture(jnp.zeros(1), MEAN[None], jnp.reshape(values, (1, -1)), basis)
    law = _law(covariance, p)
    dense = Conditioned.of(
        p, MATRIX @ _dense(SLOPE), RESIDUAL, jnp.eye(SEEN) + MATRIX @ _dense(SPREAD) @ MATRIX.T
    )
    x = jax.vmap(law.sample)(jax.random.split(jax.random.key(1), 40_000))
    expected = jax.vmap(dense.log_ratio)(x)
    np.testing.assert_allclose(jax.vmap(law.log_ratio)(x), expected, rtol=1e-3, atol=2e-3)
    reference = jax.vmap(dense.sample)(jax.random.split(jax.random.key(2), 40_000))
    error = jnp.sqrt((x.var(0) + reference.var(0)) / 40_000)
    assert jnp.all(jnp.abs(x.mean(0) - reference.mean(0)) < 4 * error)
    np.testing.assert_allclose(jnp.cov(x.T), jnp.cov(reference.T), atol=0.03)


def test_ratio_to_another_transition():
    """The mean of p / q over draws of q is 1 where p is not the law that q came from."""
    means = jnp.stack([MEAN + 0.3, MEAN - 0.3])
    p = Mixture(jnp.log(jnp.array([0.4, 0.6])), means, jnp.full((1, SIZE), 0.4))
    law = _law(COVARIANCES["low-rank"], p)
    x = jax.vmap(law.sample)(jax.random.split(jax.random.key(3), 40_000))
    ratio = jnp.exp(jax.vmap(law.log_ratio)(x))
    assert jnp.abs(ratio.mean() - 1.0) < 4 * ratio.std() / 40_000**0.5
    assert ratio.std() < 5.0  # or the bound above says nothing


def test_dirac_stays_where_it_is():
    p = Mixture(jnp.zeros(1), MEAN[None], jnp.zeros((1, 1)))
    law = _law(_matrix(0.0, 0.0, 0.0), p)
    np.testing.assert_allclose(law.sample(jax.random.key(4)), MEAN)
    assert law.log_ratio(MEAN) == 0.0
