"""Priors, operators and the reverse model that tests of several files share."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from smcdiff import kernels, priors, proposals, schedules
from smcdiff.model import read


def _covariance(seed):
    square = jax.random.normal(jax.random.key(seed), (3, 3))
    return square @ square.T + 0.2 * jnp.eye(3)


GAUSSIAN = priors.Gaussian(jnp.array([1.0, -1.0, 0.0]), _covariance(1))
MIXTURE = priors.GaussianMixture(
    jnp.array([0.3, 0.7]),
    jnp.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]]),
    jnp.stack([_covariance(1), _covariance(2)]),
)
PRIORS = {"gaussian": GAUSSIAN, "mixture": MIXTURE}
DENSE = jnp.array([[1.0, 0.5, -0.3], [0.0, 1.0, 0.8]])
MASK = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
Y, NOISE = jnp.array([0.7, -0.6]), jnp.array([0.4, 0.3])


def model(prior, matrix, noise, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(matrix @ x, noise).to_event(1), obs=y)


def reverse_model(prior, matrix, noise, num_steps):
    problem = read(model, (prior, matrix, noise), {"y": Y})
    times = schedules.UniformLogSNR()(prior.schedule, num_steps)
    levels = schedules.levels(prior.schedule, times)
    return proposals.ReverseModel(problem, kernels.Exact(), levels)
