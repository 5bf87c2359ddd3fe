"""Resamplers: unbiased, accurate in float32, and never a particle of weight zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.errors import InputError
from smcdiff.smc import resampling

NAMES = ["systematic", "stratified", "multinomial", "residual"]


def weight_cases(n):
    """Weights that have broken resamplers: smooth, heavy-tailed, one heavy, holes, equal."""
    rng = np.random.default_rng(0)
    smooth = rng.exponential(size=n)
    heavy, single = np.ones(n), np.zeros(n)
    heavy[n // 3], single[n - n // 4] = n / 2, 1.0
    holes = np.where(np.arange(n) % 5 == 2, smooth, 0.0)
    return np.float32([smooth, np.exp(4 * rng.normal(size=n)), heavy, holes, single, np.ones(n)])


def copies_of(name, key, weights, num_samples):
    """Indices and copies for a batch of weights, in one compilation."""
    draw = jax.jit(
        lambda k, w: jax.vmap(lambda w: resampling.get(name)(k, w, num_samples))(w),
    )
    indices = np.asarray(draw(key, weights))
    n = weights.shape[-1]
    return indices, np.stack([np.bincount(row, minlength=n) for row in indices])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_samples", [1000, 700])
def test_valid_indices_and_no_particle_of_weight_zero(name, num_samples):
    weights = weight_cases(1000)
    indices, copies = copies_of(name, jax.random.key(2), weights, num_samples)
    assert indices.dtype == np.int32 and indices.shape == (6, num_samples)
    assert (np.diff(indices) >= 0).all()
    assert copies[np.asarray(weights) == 0].sum() == 0


@pytest.mark.parametrize(("name", "bound"), [("systematic", 1.5), ("stratified", 2.5)])
def test_copies_stay_close_to_their_mean_in_float32(name, bound):
    # Exact arithmetic gives bounds 1 and 2; 2^18 float32 weights summed in order would be off by
    # tens of copies. The positions here are good to about 2e-7 N = 0.05.
    n = 2**18
    weights = weight_cases(n)
    _, copies = copies_of(name, jax.random.key(3), weights, n)
    exact = np.asarray(weights, np.float64)
    exact *= n / exact.sum(axis=1, keepdims=True)
    assert np.abs(copies - exact).max() < bound
    assert copies[exact == 0].sum() == 0


@pytest.mark.slow
def test_systematic_with_a_million_particles():
    n = 10**6
    weights = weight_cases(n)
    _, copies = copies_of("systematic", jax.random.key(4), weights, n)
    exact = np.asarray(weights, np.float64)
    exact *= n / exact.sum(axis=1, keepdims=True)
    assert np.abs(copies - exact).max() < 2
    assert copies[exact == 0].sum() == 0


@pytest.mark.parametrize("name", NAMES)
def test_unbiased(name):
    # Mean copies of 10 particles over 20000 draws: standard error at most sqrt(M W / 20000), the
    # multinomial one; 4.5 of them for 10 particles fail by chance 7e-5 of the time (fixed key).
    weights = jnp.array([0.0, 0.3, 0.01, 0.2, 0.0, 0.05, 0.14, 0.1, 0.2, 0.0])
    keys = jax.random.split(jax.random.key(5), 20000)
    draw = jax.jit(jax.vmap(lambda k: resampling.get(name)(k, weights, 7)))
    mean = np.bincount(np.asarray(draw(keys)).ravel(), minlength=10) / 20000
    expected = 7 * np.asarray(weights)
    assert (np.abs(mean - expected) <= 4.5 * np.sqrt(expected / 20000)).all()


def test_multinomial_has_multinomial_variance():
    # Copies of one particle are Binomial(50, w). The sample variance of 20000 draws has a relative
    # error of about sqrt(2 / 20000) = 0.01; 5 % is five of them.
    weights = jnp.array([0.5, 0.1, 0.4])
    keys = jax.random.split(jax.random.key(6), 20000)
    indices = jax.jit(jax.vmap(lambda k: resampling.multinomial(k, weights, 50)))(keys)
    copies = (np.asarray(indices)[:, :, None] == np.arange(3)).sum(axis=1)
    expected = 50 * np.asarray(weights) * (1 - np.asarray(weights))
    np.testing.assert_allclose(copies.var(axis=0), expected, rtol=0.05)


def test_residual_keeps_equal_weights_whole():
    # 1/N times N is 0.99999994 for many N: without slack every copy would be random.
    for n in (49, 1000):
        indices, _ = copies_of("residual", jax.random.key(7), np.full((1, n), 1 / n, np.float32), n)
        np.testing.assert_array_equal(indices[0], np.arange(n))


def test_weights_need_no_normalisation():
    weights = weight_cases(100)[0]
    weights = np.stack([weights, 1024 * weights])
    for name in NAMES:
        indices, _ = copies_of(name, jax.random.key(8), weights, 100)
        np.testing.assert_array_equal(indices[0], indices[1])


def test_no_gradient_flows():
    def total(weights):
        return jnp.sum(weights[resampling.systematic(jax.random.key(0), weights, 5)])

    gradient = jax.grad(total)(jnp.array([1.0, 0.0, 4.0]))
    np.testing.assert_array_equal(gradient, [1.0, 0.0, 4.0])


def test_names():
    assert resampling.get("residual") is resampling.residual
    function = functools.partial(resampling.residual)
    assert resampling.get(function) is function
    with pytest.raises(InputError, match="the function fails on"):
        resampling.get(len)
    with pytest.raises(InputError, match="did you mean 'systematic'"):
        resampling.get("sistematic")
