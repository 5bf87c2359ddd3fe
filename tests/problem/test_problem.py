"""What a problem holds: densities against closed forms, and residuals."""

import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.stats import norm, poisson, t

from smcdiff.diffusion.schedules import OrnsteinUhlenbeck
from smcdiff.priors import DiffusionPrior
from smcdiff.problem import read
from tests.problem.models import PRIOR, A, X, Y, affine, assert_residual_matches


def test_log_likelihood_is_that_of_the_observed_sites():
    problem = read(affine, (A, 0.5), {"y": Y})
    likelihood = jax.jit(jax.value_and_grad(problem.log_likelihood))
    value, gradient = likelihood(X)
    residual = np.asarray(Y) - np.asarray(A) @ np.asarray(X)
    np.testing.assert_allclose(value, norm.logpdf(residual, scale=0.5).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, np.asarray(A).T @ residual / 0.25, rtol=1e-4)
    assert (problem.site, problem.observed_sites) == ("x", ("y",))
    assert (problem.event_shape, problem.num_observations) == ((3,), 4)
    np.testing.assert_array_equal(problem.observe().values["y"], Y)
    assert problem.observe(X).pointwise["y"].shape == ()
    assert_residual_matches(problem)


def test_scale_of_each_item_of_a_batch():
    """The scale has the batch shape, not that of the trailing axis."""
    weights = jnp.array([1.0, 4.0])

    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("items", 2), handlers.scale(scale=weights):
            numpyro.sample("y", dist.Normal((A @ x).reshape(2, 2), 0.5).to_event(1), obs=y)

    problem = read(model, (), {"y": Y.reshape(2, 2)})
    assert problem.is_linear
    assert_residual_matches(problem)


def test_scale_mask_factor_plate_and_deterministic_sites():
    keep = jnp.array([True, False, True, True])

    def model(y, z):
        x = numpyro.sample("x", PRIOR)
        mean = numpyro.deterministic("mean", A @ x)
        with handlers.scale(scale=0.25), handlers.mask(mask=keep), numpyro.plate("rows", 4):
            numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)
        numpyro.sample("z", dist.StudentT(3.0, x[0], 1.0), obs=z)
        numpyro.factor("f", -(x[1] ** 4))

    y = Y.at[1].set(jnp.nan)  # a masked NaN is neither an error nor a NaN gradient
    problem = read(model, (y, 0.1))
    x = np.asarray(X)
    terms = norm.logpdf(np.asarray(Y), np.asarray(A) @ x, 0.5)
    expected = 0.25 * np.sum(terms[np.asarray(keep)]) + t.logpdf(0.1, 3.0, x[0]) - x[1] ** 4
    value, gradient = jax.jit(jax.value_and_grad(problem.log_likelihood))(X)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.all(np.isfinite(gradient))
    assert problem.observed_sites == ("y", "z", "f")
    assert set(problem.observe().values) == {"y", "z"}
    assert problem.num_observations == 5
    assert not problem.is_linear


@pytest.mark.parametrize("inside", [True, False])
def test_residual_with_masks_scales_and_several_sites(inside):
    keep = jnp.array([True, False, True, True])
    covariance = jnp.array([[1.0, 0.5], [0.5, 2.0]])

    def model(y, z):
        x = numpyro.sample("x", PRIOR)
        normal = dist.Normal(A @ x + 1.0, jnp.arange(1.0, 5.0))
        if inside:
            numpyro.sample("y", normal.mask(keep).to_event(1), obs=y)
        else:
            with handlers.mask(mask=keep):
                numpyro.sample("y", normal, obs=y)
        with handlers.scale(scale=3.0):
            numpyro.sample("z", dist.MultivariateNormal(x[:2], covariance), obs=z)

    problem = read(model, (Y.at[1].set(jnp.nan), jnp.ones(2)))
    assert_residual_matches(problem)

    @jax.jit
    def whitened(x):
        def function(x):
            return problem.observe_gaussian(x).whitened

        return function(x), jax.jacobian(function)(x)

    residual, jacobian = map(np.asarray, whitened(X))
    assert residual[1] == 0.0
    white = np.linalg.solve(np.linalg.cholesky(covariance), 1.0 - np.asarray(X)[:2])
    np.testing.assert_allclose(residual[4:], np.sqrt(3.0) * white, rtol=1e-5)
    assert np.all(np.isfinite(jacobian)) and np.all(jacobian[1] == 0.0)


@pytest.mark.usefixtures("broadcasting")
def test_mask_expanded_by_a_plate_keeps_its_axis():
    keep = jnp.array([True, False, True])

    def model(y):
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("repeats", 3, dim=-2):
            numpyro.sample("y", dist.Normal(x, 1.0).mask(keep), obs=y)

    problem = read(model, (jnp.ones((3, 3)),))
    assert_residual_matches(problem)
    whitened = np.asarray(jax.jit(lambda x: problem.observe_gaussian(x).whitened)(X))
    np.testing.assert_array_equal(whitened.reshape(3, 3)[:, 1], 0.0)


def test_batched_multivariate_normal_in_a_masked_plate():
    def model(y):
        x = numpyro.sample("x", PRIOR)
        means = jnp.stack([x, 2.0 * x])
        with numpyro.plate("rows", 2), handlers.mask(mask=jnp.array([True, False])):
            numpyro.sample("y", dist.MultivariateNormal(means, jnp.eye(3)), obs=y)

    problem = read(model, (jnp.ones((2, 3)),))
    assert_residual_matches(problem)
    whitened = np.asarray(jax.jit(lambda x: problem.observe_gaussian(x).whitened)(X))
    np.testing.assert_array_equal(whitened[3:], 0.0)


def test_threads_read_side_by_side():
    """NumPyro's stack of handlers is one for all threads: without a lock they see each other's."""

    def model(y):
        x = numpyro.sample("x", PRIOR)
        time.sleep(1e-3)  # another thread's turn
        numpyro.sample("y", dist.Normal(A @ x, 0.5).to_event(1), obs=y)

    with ThreadPoolExecutor(4) as pool:
        problems = list(pool.map(lambda _: read(model, (Y,)), range(8)))
    assert len({problem.key for problem in problems}) == 1
    assert all(problem.is_linear and problem.site == "x" for problem in problems)


def test_reading_never_samples_the_prior():
    def denoiser(x, t):
        assert isinstance(x, jax.core.Tracer), "the network ran"
        return x

    prior = DiffusionPrior(denoiser, OrnsteinUhlenbeck(), (2, 2), probe=False)

    def model(y):
        x = numpyro.sample("image", prior)
        numpyro.sample("y", dist.Normal(x, 0.1).to_event(2), obs=y)

    problem = read(model, (jnp.ones((2, 2)),))
    assert (problem.site, problem.event_shape, problem.is_linear) == ("image", (2, 2), True)


@pytest.mark.usefixtures("broadcasting")
def test_scale_of_some_axes_is_that_of_the_trailing_ones():
    """A batch (2, 3) and a scale (3,): as NumPyro's log density has it, entry by entry too."""
    weights = jnp.array([1.0, 2.0, 4.0])
    y = jnp.arange(6.0).reshape(2, 3)

    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        with handlers.scale(scale=weights):
            numpyro.sample("y", dist.Poisson(jnp.exp(x)[None] * jnp.ones((2, 1))), obs=y)

    problem = read(model, (), {"y": y})
    expected = np.asarray(weights) * poisson.logpmf(y, np.exp(np.asarray(X)))

    @jax.jit
    def terms(x):
        return problem.observe(x).entrywise_log_twist, problem.log_likelihood(x)

    entries, value = terms(X)
    np.testing.assert_allclose(entries, expected.ravel(), rtol=1e-5)
    np.testing.assert_allclose(value, expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("rows", [2, 50])
def test_operator_is_that_of_the_whitened_residual(rows):
    """Whatever size y has, to which a difference of residuals would round."""
    matrix = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)

    def model(y):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(1e6 + matrix @ x, 0.5).to_event(1), obs=y)

    problem = read(model, (jnp.full(rows, 1e6),), {}, linear=True)

    @jax.jit
    def found(x):
        operator = problem.linear_observation().operator
        return operator.as_matrix(), operator(x)

    dense, product = found(X)
    np.testing.assert_allclose(dense, matrix / 0.5, rtol=1e-5)
    np.testing.assert_allclose(product, matrix @ np.asarray(X) / 0.5, rtol=1e-4, atol=1e-5)
