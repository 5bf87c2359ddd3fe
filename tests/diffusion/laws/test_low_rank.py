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
RNG = np.random.default_rng(0)
DIRECTIONS = np.linalg.qr(RNG.normal(size=(SIZE, SIZE)))[0][:RANK]
MATRIX = RNG.normal(size=(SEEN, SIZE))
LEFT, VALUES, RIGHT = np.linalg.svd(MATRIX, full_matrices=False)
MEAN, RESIDUAL = RNG.normal(size=SIZE), RNG.normal(size=SEEN)
DIRECTIONS, MATRIX, LEFT, VALUES, RIGHT, MEAN, RESIDUAL = jax.device_put(
    (DIRECTIONS, MATRIX, LEFT, VALUES, RIGHT, MEAN, RESIDUAL)
)
SYSTEM = SingularCoordinates(VALUES, Dense(RIGHT))


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


def _draws(law, seed):
    return jax.vmap(law.sample)(jax.random.split(jax.random.key(seed), 40_000))


def test_diagonal_plus_is_its_dense_matrix():
    columns = np.random.default_rng(1).normal(size=(SEEN, RANK))
    excess = np.array([0.5, 2.0])
    diagonal = np.arange(1.0, SEEN + 1.0)
    dense = np.diag(diagonal) + (columns * excess) @ columns.T

    @jax.jit
    def found(diagonal, columns, excess):
        made = DiagonalPlus.of(diagonal, columns, excess)
        return made.solve(RESIDUAL), made.log_det, _draws(made, 5)

    solved, log_det, draws = found(diagonal, columns, excess)
    np.testing.assert_allclose(solved, np.linalg.solve(dense, RESIDUAL), rtol=1e-4)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(dense)[1], rtol=1e-5)
    np.testing.assert_allclose(np.cov(np.transpose(draws)), dense, atol=0.03 * np.max(dense))


@pytest.mark.parametrize("covariance", COVARIANCES.values(), ids=COVARIANCES)
def test_law_is_the_dense_conditional(covariance):
    """log p - log q point by point; moments of draws within 4 standard errors, or 3 %."""
    isotropic = covariance.excess[0] == 0

    @jax.jit
    def found(covariance):
        basis = None if isotropic else jnp.linalg.qr(DIRECTIONS.T, mode="complete")[0][None]
        values = jnp.diag(basis[0].T @ _dense(covariance) @ basis[0]) if basis is not None else 0.5
        p = Mixture(jnp.zeros(1), MEAN[None], jnp.reshape(values, (1, -1)), basis)
        law = _law(covariance, p)
        noise = jnp.eye(SEEN) + MATRIX @ _dense(SPREAD) @ MATRIX.T
        dense = Conditioned.of(p, MATRIX @ _dense(SLOPE), RESIDUAL, noise)
        x = _draws(law, 1)
        return x, _draws(dense, 2), jax.vmap(law.log_ratio)(x), jax.vmap(dense.log_ratio)(x)

    x, reference, *ratios = map(np.asarray, found(covariance))
    np.testing.assert_allclose(*ratios, rtol=1e-3, atol=2e-3)
    error = np.sqrt((x.var(0) + reference.var(0)) / 40_000)
    assert np.all(np.abs(x.mean(0) - reference.mean(0)) < 4 * error)
    np.testing.assert_allclose(np.cov(x.T), np.cov(reference.T), atol=0.03)


def test_ratio_to_another_transition():
    """The mean of p / q over draws of q is 1 where p is not the law that q came from."""

    @jax.jit
    def ratios(covariance):
        means = jnp.stack([MEAN + 0.3, MEAN - 0.3])
        p = Mixture(jnp.log(jnp.array([0.4, 0.6])), means, jnp.full((1, SIZE), 0.4))
        law = _law(covariance, p)
        return jnp.exp(jax.vmap(law.log_ratio)(_draws(law, 3)))

    ratio = np.asarray(ratios(COVARIANCES["low-rank"]))
    assert np.abs(ratio.mean() - 1.0) < 4 * ratio.std() / 40_000**0.5
    assert ratio.std() < 5.0  # or the bound above says nothing


def test_dirac_stays_where_it_is():
    @jax.jit
    def found(covariance):
        law = _law(covariance, Mixture(jnp.zeros(1), MEAN[None], jnp.zeros((1, 1))))
        return law.sample(jax.random.key(4)), law.log_ratio(MEAN)

    x, log_ratio = found(_matrix(0.0, 0.0, 0.0))
    np.testing.assert_allclose(x, MEAN)
    assert log_ratio == 0.0
