"""Mixtures of every form, and their dense algebra."""

import jax
import numpy as np
from scipy.special import log_softmax
from scipy.stats import multivariate_normal

from smcdiff.diffusion.laws import Mixture

SIZE = 3
NUM = 40_000
"""Draws of a test of moments: their errors are a 200th of a standard deviation."""


def make(num_components, rank, key=0):
    """A basis of ``rank`` columns; 0 is none."""
    rng = np.random.default_rng(key)
    weights = log_softmax(rng.normal(size=num_components))
    means = rng.normal(size=(num_components, SIZE))
    shape = (num_components, rank or SIZE)
    eigenvalues = rng.uniform(0.3, 1.0, size=shape)
    square = rng.normal(size=(num_components, SIZE, SIZE))
    basis = np.linalg.qr(square)[0][..., :rank] if rank else None
    rest = np.linspace(0.2, 0.5, num_components)[:, None]
    along = np.linspace(-1.0, 1.0, num_components * rank).reshape(shape) if rank else None
    offset = np.array([0.3, -0.2, 0.1])
    arrays = (weights, means, eigenvalues, basis, offset, rest, along)
    return Mixture(*(None if array is None else jax.device_put(array) for array in arrays))


def draws(law_of, mixture, key):
    """Draws of a law, its log ratios and the mixture's log densities there, by one program."""

    @jax.jit
    def drawn(mixture, key):
        law = law_of(mixture)
        x = jax.vmap(law.sample)(jax.random.split(key, NUM))
        return x, jax.vmap(law.log_ratio)(x), jax.vmap(mixture.log_prob)(x)

    return map(np.asarray, drawn(mixture, key))


def means_of(mixture):
    means = np.asarray(mixture.offset)[None] + np.asarray(mixture.means)
    if mixture.along is None:
        return means
    return means + np.einsum("kde,ke->kd", mixture.basis, mixture.along)


def covariances_of(mixture):
    basis = mixture.basis
    if basis is None:
        basis = np.broadcast_to(np.eye(SIZE), (mixture.means.shape[0], SIZE, SIZE))
    inside = np.einsum("kde,ke,kfe->kdf", basis, mixture.eigenvalues, basis)
    projections = np.einsum("kde,kfe->kdf", basis, basis)
    return inside + np.asarray(mixture.rest)[..., None] * (np.eye(SIZE) - projections)


def log_prob_of(log_weights, means, covariances, x):
    pairs = zip(means, covariances, strict=True)
    terms = np.stack([np.atleast_1d(multivariate_normal(m, c).logpdf(x)) for m, c in pairs])
    return np.logaddexp.reduce(np.asarray(log_weights)[:, None] + terms, axis=0)


CASES = [(1, 0), (1, SIZE), (1, 1), (3, 0), (3, SIZE), (3, 2)]
"""Numbers of components, and columns of their bases; 0 is none."""
