"""Densities of Gaussians from Cholesky factors, and what rounding makes of them."""

from __future__ import annotations

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

LOG_2PI = 1.8378770664093453
MOST_LOST = 2e-3
"""Of `lost_digits`: a log density is then off by some hundredths of a nat."""


def inverse_lower(cholesky: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """Inverse of a lower triangular factor.

    Under ``vmap`` XLA's triangular solve on the CPU costs a loop a right-hand side; one small
    inverse a particle, and matrix products after it, is up to a hundred times cheaper.
    """
    identity = jnp.eye(cholesky.shape[-1], dtype=cholesky.dtype)
    return jsl.solve_triangular(cholesky, identity, lower=True)


def each_times(matrices: Float[Array, "#k m m"], vectors: Float[Array, "k m"]) -> Array:
    """The product of each component's matrix, or of the one of all, and its vector; (K, m)."""
    matrices = jnp.broadcast_to(matrices, (vectors.shape[0], *matrices.shape[1:]))
    return jnp.einsum("kmn,kn->km", matrices, vectors)


def solve_component(
    inverses: Float[Array, "#k m m"], vector: Float[Array, " m"], index: Array | int
) -> Float[Array, " m"]:
    """S v for the inverse S = L^-T L^-1 of component ``index``, or of the one of all.

    Of all components, to keep one: where only the vector differs from particle to particle, that is
    a matrix product, and choosing the factor first would copy it for each particle.
    """
    white = jnp.einsum("kmn,n->km", inverses, vector)
    solved = jnp.einsum("knm,kn->km", inverses, white)
    return solved[0 if inverses.shape[0] == 1 else index]


def lost_digits(cholesky: Float[Array, "*k m m"]) -> Float[Array, ""]:
    """The largest relative rounding error of a squared pivot: of what log densities are made of.

    A pivot is the variance of an entry given those before it: where that is next to nothing of the
    entry's own variance, it is a difference of large numbers.
    """
    variances = jnp.sum(cholesky**2, axis=-1)
    pivots = jnp.diagonal(cholesky, axis1=-2, axis2=-1) ** 2
    return jnp.finfo(cholesky.dtype).eps * jnp.max(variances / pivots)


def log_normal_cholesky(
    residual: Float[Array, " m"], cholesky: Float[Array, "m m"]
) -> Float[Array, ""]:
    """Log density of N(0, L L') at ``residual``, given the lower Cholesky factor L."""
    white = inverse_lower(cholesky) @ residual
    log_det = jnp.sum(jnp.log(jnp.diagonal(cholesky)))
    return -0.5 * jnp.sum(white**2) - log_det - 0.5 * residual.shape[0] * LOG_2PI
