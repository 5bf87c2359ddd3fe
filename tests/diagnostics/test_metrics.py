"""Metrics against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.diagnostics.metrics import crps, psnr, sliced_wasserstein


def test_sliced_wasserstein_of_a_shift():
    """A shift by v moves every projection by v.u: the mean of |u_1| over the 2-sphere is 1/2."""
    x = jax.random.normal(jax.random.key(0), (200, 3))
    shifted = x + jnp.array([[2.0, 0.0, 0.0]])
    distance = sliced_wasserstein(jax.random.key(1), x, shifted, num_directions=4_000)
    # The standard deviation of |u_1| is 0.29.
    assert abs(distance - 1.0) < 4 * 2 * 0.29 / np.sqrt(4_000)
    squared = sliced_wasserstein(jax.random.key(1), x, shifted, num_directions=4_000, order=2)
    assert abs(squared - 2 / np.sqrt(3)) < 0.03
    assert sliced_wasserstein(jax.random.key(1), x, x[::-1]) == 0.0


def test_psnr():
    assert psnr(jnp.full((4, 4), 0.2), jnp.zeros((4, 4))) == pytest.approx(20.0, abs=1e-3)


def test_crps_against_its_definition():
    samples = jax.random.normal(jax.random.key(0), (50, 3))
    truth = jnp.array([0.1, -1.0, 2.0])
    pairs = jnp.mean(jnp.abs(samples[:, None] - samples[None]), axis=(0, 1))
    expected = jnp.mean(jnp.abs(samples - truth[None]), axis=0) - 0.5 * pairs
    np.testing.assert_allclose(crps(samples, truth), expected, rtol=1e-4)


def test_crps_counts_weights_as_repetitions():
    samples = jax.random.normal(jax.random.key(1), (4, 3))
    repeats = jnp.array([3, 1, 0, 2])
    truth = jnp.array([0.1, -1.0, 2.0])
    repeated = crps(jnp.repeat(samples, repeats, axis=0, total_repeat_length=6), truth)
    np.testing.assert_allclose(crps(samples, truth, repeats / 6.0), repeated, rtol=1e-4)
