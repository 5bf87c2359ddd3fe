"""The eigenvalues and eigenvectors of the covariances of a mixture's components."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from smcdiff.errors import InputError


def is_concrete(*arrays) -> bool:
    """Whether the values are known: they are not while JAX traces, and checks must wait."""
    return not any(isinstance(array, Tracer) for array in arrays)


class Spectrum(NamedTuple):
    """Covariances as `smcdiff.diffusion.laws.Mixture` has them.

    Eigenvalues are (K, q), or (1, q) where components share them; without a basis q is d, or 1
    where a component's are all the same.
    """

    eigenvalues: Float[Array, "#k q"]
    basis: Float[Array, "k d q"] | None
    rest: Float[Array, "#k 1"]


def spectrum_of(covariances: Array) -> Spectrum:
    """The spectrum of variances or dense covariances; nothing is left orthogonal to their basis.

    Args:
        covariances: a scalar, (K,), (K, d) variances or (K, d, d) matrices; K may be 1.

    Raises:
        InputError: a matrix that is not symmetric.
    """
    basis, unused = None, jnp.ones((1, 1), covariances.dtype)
    if covariances.ndim == 3:
        if is_concrete(covariances) and _is_lopsided(np.asarray(covariances)):
            raise InputError("a covariance matrix is not symmetric; give L L' of a factor L")
        covariances, basis = jnp.linalg.eigh(covariances)
    elif covariances.ndim < 2:
        covariances = covariances.reshape(-1, 1)
    return Spectrum(covariances, basis, unused)


def _is_lopsided(matrices: np.ndarray) -> bool:
    """Whether a matrix differs from its transpose by more than rounding."""
    with np.errstate(invalid="ignore"):  # of infinite entries, which are refused later
        difference = np.abs(matrices - np.swapaxes(matrices, 1, 2))
    return bool(np.max(difference) > 1e-4 * np.max(np.abs(matrices)))
