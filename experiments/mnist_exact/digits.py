"""A mixture of factor analysers of real MNIST digits, and the four inverse problems on it.

One analyser a class: maximum likelihood in closed form (Tipping and Bishop 1999, eq. 3.8 to 3.10),
the covariance W W' + psi I with q = 40 factors, from the 60,000 training images in [-1, 1].
"""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from smcdiff import exact, operators, priors
from smcdiff.base._pixels import to_unit_range
from smcdiff.errors import InputError

DATA = Path(__file__).parents[3] / "shared" / "data" / "mnist" / "mnist.npz"
SHAPE, FACTORS = (28, 28, 1), 40
NOISE = 0.1


def synthetic(size: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Blobs in the place of digits, for the smoke size: uint8 (n, size, size) and labels."""
    generator = np.random.default_rng(0)
    axis = np.arange(size)
    labels = np.arange(200) % 2
    centres = np.stack([3.0 + 5.0 * labels, np.full(200, 5.0)], 1) + generator.normal(size=(200, 2))
    square = (axis[:, None] - centres[:, :1, None]) ** 2 + (axis - centres[:, 1:, None]) ** 2
    return (255 * np.exp(-square / 6.0)).astype(np.uint8), labels


def fit(images: np.ndarray, labels: np.ndarray, factors: int = FACTORS) -> priors.GaussianMixture:
    """The mixture: one factor analyser a class, weights the classes' shares."""
    flat = to_unit_range(images).reshape(len(images), -1).astype(np.float64)
    means, loadings, noises, shares = [], [], [], []
    for label in range(labels.max() + 1):
        mine = flat[labels == label]
        values, vectors = np.linalg.eigh(np.cov(mine.T))
        psi = values[:-factors].mean()
        means.append(mine.mean(axis=0))
        loadings.append(vectors[:, -factors:] * np.sqrt(values[-factors:] - psi))
        noises.append(psi)
        shares.append(np.mean(labels == label))
    return priors.GaussianMixture.of_factors(*map(np.array, (shares, means, loadings, noises)))


def mnist_prior() -> priors.GaussianMixture:
    """The mixture of the ten digits, d = 784."""
    if not DATA.exists():
        raise InputError(f"{DATA} is not there; this experiment needs the real digits")
    with np.load(DATA) as arrays:
        return fit(arrays["x_train"], arrays["y_train"])


def tasks(size: int) -> dict[str, jnp.ndarray]:
    """The operators as matrices on flat images: half, box, blur, super-resolution."""
    shape = (size, size, 1)
    rows, columns = np.divmod(np.arange(size * size), size)
    quarter = size // 4
    inner = (rows >= quarter) & (rows < size - quarter)
    inner &= (columns >= quarter) & (columns < size - quarter)
    identity = np.eye(size * size, dtype=np.float32)
    return {
        "half": jnp.asarray(identity[columns < size // 2]),
        "box": jnp.asarray(identity[~inner]),
        "blur": exact.dense_matrix(operators.GaussianBlur(shape, width=2.0), shape),
        "super-resolution": exact.dense_matrix(operators.BlockDownsample(shape, 4), shape),
    }
