"""Distances between samples and scores of images, for the experiments.

References:
    Bonneel et al. (2015), Sliced and Radon Wasserstein barycenters of measures.
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation (CRPS).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


@partial(jax.jit, static_argnames=("num_directions", "order"))
def sliced_wasserstein(
    key: PRNGKeyArray,
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    num_directions: int = 500,
    order: int = 1,
) -> Float[Array, ""]:
    """Sliced Wasserstein distance between two equally weighted samples of the same size.

    Args:
        key: random key of the directions.
        x: (n, d).
        y: (n, d).
        num_directions: random unit directions over which the distance is averaged.
        order: p; the result is ``(mean over directions of W_p^p)^(1/p)``.

    Returns:
        The distance, in the units of the samples.
    """
    directions = jax.random.normal(key, (num_directions, x.shape[1]), x.dtype)
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    gaps = jnp.sort(x @ directions.T, axis=0) - jnp.sort(y @ directions.T, axis=0)
    return jnp.mean(jnp.abs(gaps) ** order) ** (1.0 / order)


def psnr(
    estimate: Float[Array, "*shape"], truth: Float[Array, "*shape"], data_range: float = 2.0
) -> Float[Array, ""]:
    """Peak signal-to-noise ratio in dB; ``data_range`` is 2 for data in [-1, 1].

    Args:
        estimate: (*shape).
        truth: (*shape).
        data_range: largest difference that values can have.
    """
    return 10.0 * jnp.log10(data_range**2 / jnp.mean((estimate - truth) ** 2))


def crps(
    samples: Float[Array, " n *shape"],
    truth: Float[Array, "*shape"],
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, "*shape"]:
    """Continuous ranked probability score of weighted samples.

    Args:
        samples: (n, *shape).
        truth: (*shape).
        weights: (n,), summing to 1; None is equal ones.

    Returns:
        (*shape), one score per entry in the units of the data; smaller is better.
    """
    count = samples.shape[0]
    weights = jnp.full((count,), 1.0 / count, samples.dtype) if weights is None else weights
    order = jnp.argsort(samples, axis=0)
    ranked, own = jnp.take_along_axis(samples, order, axis=0), weights[order]
    spread = jnp.sum(ranked * own * (2.0 * jnp.cumsum(own, axis=0) - own - 1.0), axis=0)
    return jnp.tensordot(weights, jnp.abs(samples - truth[None]), 1) - spread
