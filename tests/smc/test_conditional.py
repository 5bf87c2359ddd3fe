"""The conditional particle filter leaves the law of the path as it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.smc.conditional import ConditionalFilter, PathModel, conditional_systematic
from tests.smc.models import (
    COEFFICIENT,
    STATE_NOISE,
    LinearGaussian,
    kalman_log_likelihood,
    log_normal,
    observations,
)

STEPS = 4
REPEATS = 20_000


class Held(LinearGaussian):
    """The linear-Gaussian model, whose last steps may be functions of the state before."""

    dirac_from: jax.Array

    def init(self, key, kept, is_held):
        return jnp.where(is_held, kept, super().init(key))

    def step(self, key, t, prev, kept, is_held):
        kept = jnp.where(t >= self.dirac_from, COEFFICIENT * prev, kept)
        drawn = jnp.where(t >= self.dirac_from, COEFFICIENT * prev, super().step(key, t, prev))
        return jnp.where(is_held, kept, drawn)

    def trace(self, particle):
        return particle

    def log_link(self, t, prev, kept):
        density = log_normal(kept, COEFFICIENT * prev, STATE_NOISE)
        return jnp.where(t >= self.dirac_from, -jnp.inf, density)


def posterior(y, dirac_from):
    """Mean and covariance of the path given y, by the rules for Gaussians."""
    size = len(y)
    transform = np.zeros((size, size))  # of standard normals to the path
    transform[0, 0] = 1.0
    for t in range(1, size):
        transform[t] = COEFFICIENT * transform[t - 1]
        transform[t, t] = 0.0 if t >= dirac_from else STATE_NOISE
    prior = transform @ transform.T
    gain = prior @ np.linalg.inv(prior + 0.25 * np.eye(size))
    mean, covariance = gain @ np.asarray(y, float), prior - gain @ prior
    noise = np.eye(size) + transform.T @ transform / 0.25
    root = transform @ np.linalg.cholesky(np.linalg.inv(noise))
    return mean, covariance, root


@functools.cache
def sweeps(num_particles, threshold, batch_size=None):
    """One sweep of many chains, each from its own path."""
    kernel = ConditionalFilter(num_particles, threshold, batch_size)

    def one(key, model, path):
        return kernel(key, model, path)

    return jax.jit(jax.vmap(one, in_axes=(0, None, 0)))


@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("num_particles", [2, 3, 5])
@pytest.mark.parametrize("dirac_from", [STEPS + 1, STEPS])
def test_exact_paths_stay_exact(num_particles, threshold, dirac_from):
    """Draws of the posterior, after one sweep: the moments of all paths are what they were."""
    y = observations(STEPS + 1)
    mean, covariance, root = posterior(y, dirac_from)
    draws = np.random.default_rng(0).normal(size=(REPEATS, STEPS + 1)) @ root.T + mean
    model = Held(y, jnp.int32(dirac_from))
    keys = jax.random.split(jax.random.key(1), REPEATS)
    result = sweeps(num_particles, threshold)(keys, model, jnp.asarray(draws, jnp.float32))
    path = np.asarray(result.path, float)
    assert not np.any(result.failed)
    # Differences before and after, which share the draws; 35 comparisons per case, so 4 errors.
    for f in (lambda x: x - mean, lambda x: np.einsum("ni,nj->nij", x - mean, x - mean)):
        change = f(path) - f(draws)
        error = change.std(axis=0) / REPEATS**0.5
        assert np.all(np.abs(change.mean(axis=0)) < 4 * error + 1e-6)
    # And it moves: of N particles the path's own is chosen less often than always.
    moved = np.mean(np.any(np.asarray(result.renewed), axis=1))
    assert moved > (0.3 if threshold > 0.0 else 0.03)  # without resampling, all five at a stroke
    assert 0.0 < np.mean(result.renewed[:, 0]) < 1.0


def test_any_start_is_forgotten():
    """From paths far away: after some sweeps the moments are those of the posterior."""
    y = observations(STEPS + 1)
    mean, covariance, _ = posterior(y, STEPS + 1)
    model, path = Held(y, jnp.int32(STEPS + 1)), jnp.full((4_000, STEPS + 1), 5.0)
    for number in range(12):
        keys = jax.random.split(jax.random.key(number), len(path))
        path = sweeps(5, 0.7)(keys, model, path).path
    path = np.asarray(path, float)
    error = np.sqrt(np.diag(covariance) / len(path))
    assert np.all(np.abs(path.mean(axis=0) - mean) < 3 * error)
    # Of normal draws, variances have the relative error sqrt(2 / n).
    ratios = path.var(axis=0) / np.diag(covariance)
    assert np.all(np.abs(ratios - 1.0) < 3 * (2 / len(path)) ** 0.5)


def test_batches_change_nothing():
    """But for rounding: the draws are the same; with equal batches every bit is."""
    y = observations(STEPS + 1)
    model = Held(y, jnp.int32(STEPS + 1))
    keys, path = jax.random.split(jax.random.key(0), 8), jnp.zeros((8, STEPS + 1))
    for batch_size in (2, 5):
        results = (sweeps(5, 0.7, size)(keys, model, path) for size in (None, batch_size))
        for a, b in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    again = (sweeps(5, 0.7)(keys, model, path).path for _ in range(2))
    np.testing.assert_array_equal(*again)
    assert isinstance(model, PathModel)


def test_not_held_it_is_a_filter():
    """Its evidence is unbiased, and a path of it may be anything: NaN is not looked at."""
    y = observations(STEPS + 1)
    model = Held(y, jnp.int32(STEPS + 1))
    kernel = ConditionalFilter(20, 0.7)
    path = jnp.full(STEPS + 1, jnp.nan)

    @jax.jit
    @jax.vmap
    def run(key):
        return kernel(key, model, path, False)

    found = run(jax.random.split(jax.random.key(0), 4_000))
    ratio = np.exp(np.asarray(found.log_evidence, float) - kalman_log_likelihood(y))
    assert abs(ratio.mean() - 1.0) < 3 * ratio.std() / len(ratio) ** 0.5
    assert np.all(np.isfinite(found.path)) and np.all(found.renewed)


def test_failure_is_told():
    """No particle with a weight."""
    model = Held(jnp.full(STEPS + 1, jnp.nan), jnp.int32(STEPS + 1))
    assert ConditionalFilter(3)(jax.random.key(0), model, jnp.zeros(STEPS + 1)).failed


@pytest.mark.parametrize("first", [0, 2])
def test_conditional_systematic(first):
    """The number of copies, given one of ``first``, is that of systematic resampling, tilted."""
    weights = jnp.array([0.3, 0.0, 0.05, 0.65])
    n, repeats = len(weights), 40_000
    keys = jax.random.split(jax.random.key(0), repeats)
    drawn = jax.jit(jax.vmap(lambda key: conditional_systematic(key, weights, jnp.int32(first))))
    copies = np.apply_along_axis(np.bincount, 1, np.asarray(drawn(keys)), minlength=n)
    # Unconditionally: particles in random order, one comb; each sample counts by its copies.
    rng = np.random.default_rng(0)
    plain = np.zeros((repeats, n), int)
    for row in plain:
        order = rng.permutation(n)
        ends = n * np.cumsum(np.asarray(weights, float)[order])
        teeth = np.minimum(np.searchsorted(ends, rng.uniform() + np.arange(n), "right"), n - 1)
        np.add.at(row, order[teeth], 1)
    tilt = plain[:, first] / plain[:, first].mean()
    for particle in range(n):
        for number in range(n + 1):
            wanted = tilt * (plain[:, particle] == number)
            found = copies[:, particle] == number
            error = np.sqrt((wanted.var() + found.var()) / repeats)
            assert abs(wanted.mean() - found.mean()) <= 4 * error + 1e-9
    assert np.all(copies[:, 1] == 0)
