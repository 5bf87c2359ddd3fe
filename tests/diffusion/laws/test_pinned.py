"""Pinned laws against dense Gaussian algebra and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.diffusion.laws import Mixture, PinnedDirections, pinned
from smcdiff.operators import Dense, Mask
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
def test_fixed_coordinates(num_components, rank):
    """The rest follows its conditional law; the log density is that of the fixed coordinates."""
    mixture = make(num_components, rank)
    fixed, values = np.array([True, False, True]), np.float32([0.3, 0.0, -0.5])

    def law_of(mixture):
        law = pinned(mixture, Mask.of(np.ones(SIZE)), jnp.asarray(fixed), jnp.asarray(values))
        assert isinstance(law, PinnedDirections) == bool(rank)
        return law

    x, log_density, _ = draws(law_of, mixture, jax.random.key(5))
    np.testing.assert_allclose(x[:, fixed], np.broadcast_to(values[fixed], (NUM, 2)), atol=1e-5)
    covariances = covariances_of(mixture)
    index = np.array([0, 2])
    small = covariances[:, index[:, None], index]
    marginal = log_prob_of(
        mixture.log_weights, means_of(mixture)[:, index], small, values[None, index]
    )
    np.testing.assert_allclose(log_density, np.broadcast_to(marginal, (NUM,)), rtol=1e-3)
    # Bayes: p(free | fixed) = p(x) / p(fixed); its mean by quadrature over the one free coordinate.
    axis = np.linspace(-8, 8, 4001)
    points = np.stack([np.full_like(axis, 0.3), axis, np.full_like(axis, -0.5)], axis=1)
    density = np.exp(log_prob_of(mixture.log_weights, means_of(mixture), covariances, points))
    mean = np.sum(axis * density) / np.sum(density)
    assert abs(x[:, 1].mean() - mean) < 4 * x[:, 1].std() / NUM**0.5


@pytest.mark.parametrize(("num_components", "dense"), CASES)
def test_pinned_directions(num_components, dense):
    """x given Q x = v for the two used rows of three: the limit of conditioning, and N(v; ...)."""
    mixture = make(num_components, dense)
    square = np.random.default_rng(6).normal(size=(SIZE, SIZE))
    rows = np.linalg.qr(square)[0].astype(np.float32)
    used, values = np.array([True, False, True]), np.float32([0.3, np.nan, -0.5])

    def law_of(mixture):
        return pinned(mixture, Dense(rows), jnp.asarray(used), jnp.asarray(values))

    x, log_density, _ = draws(law_of, mixture, jax.random.key(7))
    small, target = np.asarray(rows[used], np.float64), np.asarray(values[used], np.float64)
    np.testing.assert_allclose(x @ small.T, np.broadcast_to(target, (NUM, 2)), atol=1e-5)
    covariances = covariances_of(mixture)
    joint = np.einsum("md,kde,ne->kmn", small, covariances, small)
    means = np.asarray(means_of(mixture), np.float64) @ small.T
    marginal = log_prob_of(mixture.log_weights, means, joint, target[None])
    np.testing.assert_allclose(log_density, np.broadcast_to(marginal, (NUM,)), rtol=1e-3)
    # The free direction against the quadrature of p on the line that the others leave.
    axis, free = np.linspace(-8, 8, 4001), np.asarray(rows[1], np.float64)
    points = target @ small + axis[:, None] * free
    density = np.exp(log_prob_of(mixture.log_weights, means_of(mixture), covariances, points))
    moments = np.array([axis, axis**2]) @ density / np.sum(density)
    found = np.stack([x @ free, (x @ free) ** 2])
    assert np.all(np.abs(found.mean(1) - moments) < 4 * found.std(1) / NUM**0.5)


def test_pinned_directions_of_very_different_variances():
    """Each has its own rounding: variances of 1 and 1e-8, pinned at a standard deviation."""
    variances, values = np.float32([1.0, 1e-8, 1.0]), np.float32([1.0, 1e-4, 0.0])

    @jax.jit
    def found(variances, values, used):
        basis = jnp.eye(SIZE)[None]
        mixture = Mixture(jnp.zeros(1), jnp.zeros((1, SIZE)), variances[None], basis)
        law = PinnedDirections.of(mixture, basis[0], used, values)
        x = law.sample(jax.random.key(0))
        return x, law.log_ratio(x)

    x, log_ratio = found(variances, values, np.array([True, True, False]))
    expected = -1.0 - np.log(2 * np.pi) + 0.5 * np.log(1e8)
    np.testing.assert_allclose(log_ratio, expected, rtol=1e-5)
    np.testing.assert_allclose(x[:2], values[:2], rtol=1e-5)


def test_pinned_dirac_goes_to_the_nearest_point():
    rows = np.float32([[0.6, 0.8, 0.0]])

    @jax.jit
    def draw(rows, key):
        mixture = Mixture(jnp.zeros(1), jnp.ones((1, SIZE)), jnp.zeros((1, 1)))
        law = PinnedDirections.of(mixture, rows, jnp.array([True]), jnp.array([3.0]))
        return law.sample(key)

    x = draw(rows, jax.random.key(0))
    np.testing.assert_allclose(x, 1.0 + 1.6 * rows[0], rtol=1e-6)  # rows @ 1 is 1.4
