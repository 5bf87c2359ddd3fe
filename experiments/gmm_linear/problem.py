"""The Gaussian-mixture benchmark of MCGDiff (Cardoso et al. 2023, section 4 and appendix).

25 components with means (8i, 8j, 8i, 8j, ...), i, j in {-2, ..., 2}, and unit covariance; weights
proportional to squared standard normals; y = A x + sigma_y eps with A = U diag(s) V' from the
singular vectors of a standard normal d_y x d_x matrix, s ~ U[0, 1] sorted, sigma_y ~ U[0, 1]
max(s).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from smcdiff import priors

CELLS = [(d_x, d_y) for d_x in (8, 80, 800) for d_y in (1, 2, 4)]
PUBLISHED = {
    "MCGDiff": [1.43, 0.49, 0.38, 1.39, 0.67, 0.28, 2.40, 1.31, 0.47],
    "DDRM": [5.88, 5.20, 2.51, 5.64, 7.07, 7.81, 7.44, 8.95, 8.39],
    "DPS": [4.86, 5.79, 3.48, 4.98, 5.10, 4.28, 6.49, 6.88, 5.51],
}


class Instance(NamedTuple):
    """One problem of the benchmark."""

    prior: priors.GaussianMixture
    matrix: jax.Array
    noise: jax.Array
    y: jax.Array


@partial(jax.jit, static_argnames=("d_x", "d_y"))
def draw(key, d_x: int, d_y: int) -> Instance:
    """One random problem of a cell."""
    keys = jax.random.split(key, 6)
    index = jnp.arange(-2.0, 3.0)
    pairs = jnp.stack(jnp.meshgrid(index, index, indexing="ij"), -1).reshape(25, 2)
    weights = jax.random.normal(keys[0], (25,)) ** 2
    prior = priors.GaussianMixture(weights, jnp.tile(8.0 * pairs, (1, d_x // 2)), 1.0)
    left, _, right = jnp.linalg.svd(jax.random.normal(keys[1], (d_y, d_x)), full_matrices=False)
    singular = jnp.sort(jax.random.uniform(keys[2], (d_y,)))[::-1]
    matrix = (left * singular[None]) @ right
    noise = jax.random.uniform(keys[3], minval=1e-3) * jnp.max(singular)
    y = matrix @ prior.sample(keys[4]) + noise * jax.random.normal(keys[5], (d_y,))
    return Instance(prior, matrix, noise, y)


def model(prior, matrix, noise, y=None):
    """The benchmark as a NumPyro model; all that varies between problems is an argument."""
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(matrix @ x, noise).to_event(1), obs=y)
