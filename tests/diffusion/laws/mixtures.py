"""Mixtures of every form, and their dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from smcdiff.diffusion.laws import Mixture

SIZE = 3
NUM = 40_000
"""Draws of a test of moments: their errors are a 200th of a standard deviation."""


def make(num_components, rank, key=0):
    """A basis of ``rank`` columns; 0 is none."""
    keys = jax.random.split(jax.random.key(key), 4)
    weights = jax.nn.log_softmax(jax.random.normal(keys[0], (num_components,)))
    means = jax.random.normal(keys[1], (num_components, SIZE))
    shape = (num_components, rank or SIZE)
    eigenvalues = jax.random.uniform(keys[2], shape, minval=0.3, maxval=1.0)
    square = jax.random.normal(keys[3], (num_components, SIZE, SIZE))
    basis = jnp.linalg.qr(square)[0][..., :rank] if rank else None
    rest = jnp.linspace(0.2, 0.5, num_components)[:, None]
    along = jnp.linspace(-1.0, 1.0, num_components * rank).reshape(shape) if rank else None
    offset = jnp.array([0.3, -0.2, 0.1])
    return Mixture(weights, means, eigenvalues, basis, offset, rest, along)


def means_of(mixture):
    means = jnp.atleast_2d(mixture.offset) + mixture.means
    if mixture.along is None:
        return means
    return means + np.einsum("kde,ke->kd", mixture.basis, mixture.along)


def covariances_of(mixture):
    basis = mixture.basis
    if basis is None:
        basis = jnp.broadcast_to(jnp.eye(SIZE), (mixture.means.shape[0], SIZE, SIZE))
    inside = np.einsum("kde,ke,kfe->kdf", basis, mixture.eigenvalues, basis)
    projections = np.einsum("kde,kfe->kdf", basis, basis)
    return inside + mixture.rest[..., None] * (np.eye(SIZE) - projections)


def log_prob_of(log_weights, means, covariances, x):
    pairs = zip(means, covariances, strict=True)
    terms = np.stack([np.atleast_1d(multivariate_normal(m, c).logpdf(x)) for m, c in pairs])
    return np.logaddexp.reduce(np.asarray(log_weights)[:, None] + terms, axis=0)


CASES = [(1, 0), (1, SIZE), (1, 1), (3, 0), (3, SIZE), (3, 2)]
"""Numbers of components, and columns of their bases; 0 is none."""
