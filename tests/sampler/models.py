"""A mixture seen through a matrix: the problem of this folder's tests."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from smcdiff import SMC, operators, priors

PRIOR = priors.GaussianMixture(
    jnp.array([0.3, 0.7]), jnp.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]]), 0.5
)
MATRIX = jnp.array([[1.0, 0.5, -0.3], [0.0, 1.0, 0.8]])
Y, NOISE = jnp.array([0.7, -0.6]), 0.4


def model(prior, operator, noise, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator(x), noise).to_event(), obs=y)


def sampler(proposal=None, **options):
    options = {"num_particles": 128, "num_steps": 10, "progress_bar": False, **options}
    return SMC(model, proposal, **options)


def run(smc, key=0, prior=PRIOR, noise=NOISE, y=Y, **options):
    return smc.run(jax.random.key(key), prior, operators.Dense(MATRIX), noise, y=y, **options)
