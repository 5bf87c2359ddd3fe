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

    Draws at which the likelihood is not finite are left to the run, which names them.
    """
    draws = model.problem.prior.rough_draws(jax.random.fold_in(key, 1), _NUM_DRAWS)
    values = jax.lax.map(model.problem.log_likelihood, draws, batch_size=64)
    values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
    return logsumexp(values) - math.log(_NUM_DRAWS)
