"""Models with exact posteriors, and samplers that are right or wrong in a known way."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import priors

PRIOR = priors.Gaussian(jnp.array([0.5, -1.0]), jnp.array([1.0, 4.0]))
OPERATOR = np.array([[1.0, 0.5, 1.0], [0.0, 1.0, -1.0]], np.float32)
NOISE = 0.7


def offset_model(y=None, noise=NOISE):
    """A diffusion site x (2,) and an unknown offset, seen through two linear functions."""
    x = numpyro.sample("x", PRIOR)
    offset = numpyro.sample("offset", dist.Normal(1.0, 0.5))
    mean = jnp.asarray(OPERATOR) @ jnp.concatenate([x, offset[None]])
    numpyro.sample("y", dist.Normal(mean, noise).to_event(1), obs=y)


class Exact:
    """The posterior of `offset_model`, but for what is asked for."""

    def __init__(self, scale=1.0, shift=0.0, count=60):
        self.scale, self.shift, self.count = scale, shift, count
        mean, precision = np.array([0.5, -1.0, 1.0]), np.diag([1.0, 0.25, 4.0])
        self.covariance = np.linalg.inv(precision + OPERATOR.T @ OPERATOR / NOISE**2)
        self.gain = self.covariance @ OPERATOR.T / NOISE**2
        self.constant = self.covariance @ precision @ mean
        self.factor = np.linalg.cholesky(self.covariance)

    def __call__(self, key, data):
        mean = self.gain @ np.asarray(data["y"]) + self.constant
        normals = np.asarray(jax.random.normal(key, (self.count, 3)))
        deviation = np.sqrt(np.diag(self.covariance))
        draws = mean + self.shift * deviation + self.scale * normals @ self.factor.T
        return {"x": draws[:, :2], "offset": draws[:, 2]}


def ignores_data(key, data):
    """The prior in place of the posterior."""
    key_x, key_offset = jax.random.split(key)
    offset = 1.0 + 0.5 * jax.random.normal(key_offset, (60,))
    return {"x": PRIOR.sample(key_x, (60,)), "offset": offset}


MIXTURE = priors.GaussianMixture(jnp.ones(2), jnp.array([[-1.5, 0.0], [1.5, 1.0]]), 0.4)


def mixture_model(y=None):
    """A mixture of which the sum is seen."""
    x = numpyro.sample("x", MIXTURE)
    numpyro.sample("y", dist.Normal(x.sum(keepdims=True), 0.5).to_event(1), obs=y)
