"""Transitions: each change of law against dense Gaussian algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from smcdiff.diffusion.laws.mixture import Transition

SIZE = 3
NUM = 40_000


def _make(num_components, rank, key=0):
    """A basis of ``rank`` columns; 0 is none."""
    keys = jax.random.split(jax.random.key(key), 4)
    weights = jax.nn.log_softmax(jax.random.normal(keys[0], (num_components,)))
    means = jax.random.normal(keys[1], (num_components, SIZE))
    shape = (num_components, rank or SIZE)
    eigenvalues = jax.random.uniform(keys[2], shape, minval=0.3, maxval=1.0)
    square = jax.random.normal(keys[3], (num_components, SIZE, SIZE))
    basis = jnp.linalg.qr(square)[0][..., :rank] if rank else None
    rest = jnp.linspace(0.2, 0.5, num_components)[:, None]
    along = jnp.linspace(-1.0, 1.0, num_components * rank).reshape(shape) if rank else None
    offset = jnp.array([0.3, -0.2, 0.1])
    return Transition(weights, means, eigenvalues, basis, offset, rest, along)


def _means(transition):
    means = transition.offset + transition.means
    if transition.along is None:
        return means
    return means + np.einsum("kde,ke->kd", transition.basis, transition.along)


def _covariances(transition):
    basis = transition.basis
    if basis is None:
        basis = jnp.broadcast_to(jnp.eye(SIZE), (transition.means.shape[0], SIZE, SIZE))
    inside = np.einsum("kde,ke,kfe->kdf", basis, transition.eigenvalues, basis)
    projections = np.einsum("kde,kfe->kdf", basis, basis)
    return inside + transition.rest[..., None] * (np.eye(SIZE) - projections)


def _log_prob(log_weights, means, covariances, x):
    pairs = zip(means, covariances, strict=True)
    terms = np.stack([np.atleast_1d(multivariate_normal(m, c).logpdf(x)) for m, c in pairs])
    return np.logaddexp.reduce(np.asarray(log_weights)[:, None] + terms, axis=0)


CASES = [(1, 0), (1, SIZE), (1, 1), (3, 0), (3, SIZE), (3, 2)]


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_log_prob_and_sample(num_components, rank):
    transition = _make(num_components, rank)
    x = jax.vmap(transition.sample)(jax.random.split(jax.random.key(1), NUM))
    expected = _log_prob(transition.log_weights, _means(transition), _covariances(transition), x)
    np.testing.assert_allclose(jax.vmap(transition.log_prob)(x), expected, rtol=1e-3, atol=1e-4)
    standard_error = jnp.std(x, axis=0) / NUM**0.5
    assert jnp.all(jnp.abs(x.mean(0) - transition.mean) < 4 * standard_error)


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_tilted_draws_and_ratio(num_components, rank):
    """q is the mixture with means mu + V g and weights w exp(g.mu + g.V g / 2), normalised."""
    transition, gradient = _make(num_components, rank), jnp.array([0.5, -1.0, 0.8])
    keys = jax.random.split(jax.random.key(2), NUM)
    law = transition.tilted(gradient)
    x = jax.vmap(law.sample)(keys)
    log_ratio = jax.vmap(law.log_ratio)(x)
    covariances = _covariances(transition)
    means = _means(transition) + np.einsum("kde,e->kd", covariances, gradient)
    exponents = _means(transition) @ gradient + 0.5 * (means - _means(transition)) @ gradient
    log_weights = jax.nn.log_softmax(transition.log_weights + exponents)
    log_q = _log_prob(log_weights, means, covariances, x)
    np.testing.assert_allclose(log_ratio, jax.vmap(transition.log_prob)(x) - log_q, atol=2e-4)
    expected = jnp.exp(log_weights) @ means
    assert jnp.all(jnp.abs(x.mean(0) - expected) < 4 * jnp.std(x, axis=0) / NUM**0.5)


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_tilt_is_as_long_as_there_is_room(num_components, rank):
    transition, gradient = _make(num_components, rank), jnp.array([0.5, -1.0, 0.8])
    within = np.einsum("kde,d,e->k", _covariances(transition), gradient, gradient)
    gain = float(jnp.exp(transition.log_weights) @ within)
    for room, step in ((0.25 * gain, 0.25), (2.0 * gain, 1.0), (0.0, 0.0)):
        law, plain = transition.tilted(gradient, room), transition.tilted(step * gradient)
        np.testing.assert_allclose(law.gradient, plain.gradient, rtol=1e-5)
        np.testing.assert_allclose(law.log_weights, plain.log_weights, atol=1e-5)


def test_tilt_of_a_dirac_without_room():
    dirac = Transition(jnp.zeros(1), jnp.ones((1, SIZE)), jnp.zeros((1, 1)))
    law = dirac.tilted(jnp.ones(SIZE), 0.0)
    np.testing.assert_array_equal(law.sample(jax.random.key(0)), jnp.ones(SIZE))
    assert law.log_ratio(jnp.ones(SIZE)) == 0.0


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_conditioned_draws_and_ratio(num_components, rank):
    transition = _make(num_components, rank)
    matrix = jax.random.normal(jax.random.key(3), (2, SIZE))
    residual, noise = jnp.array([0.7, -0.4]), jnp.array([[0.5, 0.1], [0.1, 0.3]])
    keys = jax.random.split(jax.random.key(4), NUM)
    law = transition.conditioned(matrix, residual, noise)
    x = jax.vmap(law.sample)(keys)
    log_ratio = jax.vmap(law.log_ratio)(x)
    covariances, centre = _covariances(transition), transition.mean
    joint = np.einsum("md,kde,ne->kmn", matrix, covariances, matrix) + noise
    gains = np.einsum("kde,me,kmn->kdn", covariances, matrix, np.linalg.inv(joint))
    misfits = residual - (_means(transition) - centre) @ matrix.T
    means = _means(transition) + np.einsum("kdm,km->kd", gains, misfits)
    posterior = covariances - np.einsum("kdm,me,kef->kdf", gains, matrix, covariances)
    log_norm = [
        multivariate_normal(np.zeros(2), j).logpdf(m) for j, m in zip(joint, misfits, strict=True)
    ]
    log_weights = jax.nn.log_softmax(transition.log_weights + jnp.array(log_norm))
    log_q = _log_prob(log_weights, means, posterior, x)
    np.testing.assert_allclose(log_ratio, jax.vmap(transition.log_prob)(x) - log_q, atol=2e-3)
    expected = jnp.exp(log_weights) @ means
    assert jnp.all(jnp.abs(x.mean(0) - expected) < 4 * jnp.std(x, axis=0) / NUM**0.5)
    weights, apart = np.exp(log_weights), means - expected
    covariance = np.einsum("k,kde->de", weights, posterior)
    covariance += np.einsum("k,kd,ke->de", weights, apart, apart)
    # A sample variance of a Gaussian has the relative error sqrt(2 / n).
    assert np.all(np.abs(np.cov(x.T) - covariance) < 5 * (2 / NUM) ** 0.5 * covariance.max())


@pytest.mark.parametrize(("num_components", "rank"), CASES)
def test_fixed_coordinates(num_components, rank):
    """The rest follows its conditional law; the log density is that of the fixed coordinates."""
    transition = _make(num_components, rank)
    fixed, values = jnp.array([True, False, True]), jnp.array([0.3, 0.0, -0.5])
    keys = jax.random.split(jax.random.key(5), NUM)
    x, log_density = jax.vmap(lambda key: transition.sample_fixed(key, fixed, values))(keys)
    np.testing.assert_allclose(x[:, fixed], jnp.broadcast_to(values[fixed], (NUM, 2)), atol=1e-5)
    covariances = _covariances(transition)
    index = np.array([0, 2])
    small = covariances[:, index[:, None], index]
    marginal = _log_prob(
        transition.log_weights, _means(transition)[:, index], small, np.asarray(values)[None, index]
    )
    np.testing.assert_allclose(log_density, np.broadcast_to(marginal, (NUM,)), rtol=1e-3)
    # Bayes: p(free | fixed) = p(x) / p(fixed); its mean by quadrature over the one free coordinate.
    axis = np.linspace(-8, 8, 4001)
    points = np.stack([np.full_like(axis, 0.3), axis, np.full_like(axis, -0.5)], axis=1)
    density = np.exp(_log_prob(transition.log_weights, _means(transition), covariances, points))
    mean = np.sum(axis * density) / np.sum(density)
    assert abs(x[:, 1].mean() - mean) < 4 * x[:, 1].std() / NUM**0.5


@pytest.mark.parametrize(("num_components", "dense"), CASES)
def test_pinned_directions(num_components, dense):
    """x given Q x = v for the two used rows of three: the limit of conditioning, and N(v; ...)."""
    transition = _make(num_components, dense)
    rows = jnp.linalg.qr(jax.random.normal(jax.random.key(6), (SIZE, SIZE)))[0]
    used, values = jnp.array([True, False, True]), jnp.array([0.3, jnp.nan, -0.5])
    keys = jax.random.split(jax.random.key(7), NUM)
    x, log_density = jax.vmap(lambda key: transition.sample_pinned(key, rows, used, values))(keys)
    small, target = np.asarray(rows[used], np.float64), np.asarray(values[used], np.float64)
    np.testing.assert_allclose(x @ small.T, np.broadcast_to(target, (NUM, 2)), atol=1e-5)
    covariances = _covariances(transition)
    joint = np.einsum("md,kde,ne->kmn", small, covariances, small)
    means = np.asarray(_means(transition), np.float64) @ small.T
    marginal = _log_prob(transition.log_weights, means, joint, target[None])
    np.testing.assert_allclose(log_density, np.broadcast_to(marginal, (NUM,)), rtol=1e-3)
    # The free direction against the quadrature of p on the line that the others leave.
    axis, free = np.linspace(-8, 8, 4001), np.asarray(rows[1], np.float64)
    points = target @ small + axis[:, None] * free
    density = np.exp(_log_prob(transition.log_weights, _means(transition), covariances, points))
    moments = np.array([axis, axis**2]) @ density / np.sum(density)
    found = np.stack([x @ free, (x @ free) ** 2])
    assert np.all(np.abs(found.mean(1) - moments) < 4 * found.std(1) / NUM**0.5)


def test_pinned_directions_of_very_different_variances():
    """Each has its own rounding: variances of 1 and 1e-8, pinned at a standard deviation."""
    variances, values = jnp.array([1.0, 1e-8, 1.0]), jnp.array([1.0, 1e-4, 0.0])
    used = jnp.array([True, True, False])
    basis = jnp.eye(SIZE)[None]
    transition = Transition(jnp.zeros(1), jnp.zeros((1, SIZE)), variances[None], basis)
    x, log_density = transition.sample_pinned(jax.random.key(0), basis[0], used, values)
    expected = -1.0 - np.log(2 * np.pi) + 0.5 * np.log(1e8)
    np.testing.assert_allclose(log_density, expected, rtol=1e-5)
    np.testing.assert_allclose(x[:2], values[:2], rtol=1e-5)


def test_pinned_dirac_goes_to_the_nearest_point():
    transition = Transition(jnp.zeros(1), jnp.ones((1, SIZE)), jnp.zeros((1, 1)))
    rows = jnp.array([[0.6, 0.8, 0.0]])
    x, _ = transition.sample_pinned(jax.random.key(0), rows, jnp.array([True]), jnp.array([3.0]))
    np.testing.assert_allclose(x, 1.0 + 1.6 * rows[0], rtol=1e-6)  # rows @ 1 is 1.4


def test_changes_are_finite_at_a_dirac():
    """The last step of DDIM has no variance: every change returns the mean with log ratio 0."""
    transition = Transition(jnp.zeros(1), jnp.ones((1, SIZE)), jnp.zeros((1, 1)))
    key = jax.random.key(0)
    tilted = transition.tilted(jnp.full(SIZE, 5.0))
    conditioned = transition.conditioned(jnp.eye(SIZE), jnp.ones(SIZE), jnp.eye(SIZE))
    for law in (tilted, conditioned):
        x = law.sample(key)
        np.testing.assert_allclose(x, 1.0)
        np.testing.assert_allclose(law.log_ratio(x), 0.0, atol=1e-6)
