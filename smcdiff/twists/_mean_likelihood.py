"""The mean likelihood under the prior: the scale of a twist."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.problem import ReverseModel

_NUM_DRAWS = 1024


def log_mean_likelihood(key: PRNGKeyArray, model: ReverseModel) -> Float[Array, ""]:
    """Log of the mean likelihood under the prior: the evidence, as far as few draws tell.

    Unknown parameters are drawn from their prior, too.

    Draws at which the likelihood is not finite are left to the run, which names them.
    """
    problem = model.problem
    draws = problem.prior.rough_draws(jax.random.fold_in(key, 1), _NUM_DRAWS)
    if problem.parameters is None:
        values = jax.lax.map(problem.log_likelihood, draws, batch_size=64)
    else:
        keys = jax.random.split(jax.random.fold_in(key, 2), _NUM_DRAWS)

        def of_pair(pair):
            x, key = pair
            return problem.at(problem.draw_parameters(key)).log_likelihood(x)

        values = jax.lax.map(of_pair, (draws, keys), batch_size=64)
    values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
    return logsumexp(values) - math.log(_NUM_DRAWS)
