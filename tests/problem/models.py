"""Small models and the check that tests of several files share."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff.priors import Gaussian
from smcdiff.problem import Problem, read

PRIOR = Gaussian(jnp.zeros(3), 1.0)
A = jnp.array([[0.4, -1.1, 0.3], [1.2, 0.5, -0.7], [-0.2, 0.8, 1.5], [0.9, -0.6, 0.1]])
X = jnp.array([0.3, -1.2, 0.7])
Y = jnp.array([0.5, -0.2, 1.0, 2.0])


def affine(operator, noise, y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(operator @ x, noise).to_event(1), obs=y)


def observing(mean, noise=0.5, y=Y):
    """A model of y with the given mean function, read."""

    def model(y):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(mean(x), noise).to_event(1), obs=y)

    return read(model, (y,))


def assert_residual_matches(problem: Problem):
    """log_likelihood(x) + |residual(x)|^2 / 2 is the same for all x, and what the scales say."""
    assert problem.is_linear
    points = np.random.default_rng(0).normal(size=(5, *problem.event_shape))

    @jax.jit
    def both(problem, points):
        observation = problem.linear_observation()
        values = jax.vmap(problem.log_likelihood)(points)
        return values, jax.vmap(observation.residual)(points), observation.log_constant

    values, residuals, constant = both(problem, np.float32(points))
    constants = values + 0.5 * np.sum(np.square(residuals), axis=1)
    np.testing.assert_allclose(constants, constant, rtol=1e-4, atol=1e-4)
