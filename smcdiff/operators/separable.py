"""Separable maps of images: Gaussian blur, block averages, bicubic downsampling."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from smcdiff.errors import InputError
from smcdiff.operators._images import check_image
from smcdiff.operators.kronecker import Kronecker
from smcdiff.operators.structure import as_floats, at_once, is_known


class Separable(Kronecker):
    """The same matrix on all columns of an image, another on all rows, channel by channel.

    Args:
        shape: (h, w) or (h, w, c).
        rows: (h', h), acts down the columns.
        columns: (w', w), acts along the rows.

    Raises:
        InputError: a shape of other rank, or matrices that do not fit it.
    """

    def __init__(self, shape: tuple[int, ...], rows: ArrayLike, columns: ArrayLike):
        event = check_image(type(self).__name__, shape)
        matrices = as_floats(rows), as_floats(columns)
        sizes = tuple(matrix.shape[1] if matrix.ndim == 2 else None for matrix in matrices)
        if sizes != event[:2]:
            raise InputError(
                f"{type(self).__name__}: matrices of {matrices[0].shape} and {matrices[1].shape} do"
                f" not act on images of {event}"
            )
        super().__init__((*matrices, None)[: len(event)], event)

    @property
    def rows(self) -> Float[Array, "a h"]:
        """(h', h), acts down the columns."""
        return self._matrix(0)

    @property
    def columns(self) -> Float[Array, "b w"]:
        """(w', w), acts along the rows."""
        return self._matrix(1)


@partial(jax.jit, static_argnums=0)
def _gaussian(size: int, width: Float[Array, ""]) -> Float[Array, "n n"]:
    """(size, size): rows of a normalised Gaussian; what falls beyond the edge is lost."""
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    weights = jnp.exp(-0.5 * (np.arange(-size, size + 1) / width) ** 2)
    return jnp.exp(-0.5 * (distance / width) ** 2) / jnp.sum(weights)


class GaussianBlur(Separable):
    """Convolution of each channel with a Gaussian; outside the image is zero.

    Args:
        shape: (h, w) or (h, w, c).
        width: standard deviation of the Gaussian, in pixels; may be traced, as of an unknown width
            with a prior.

    Raises:
        InputError: a shape of other rank, or a width that is not positive.
    """

    def __init__(self, shape: tuple[int, ...], width: ArrayLike):
        shape = check_image("GaussianBlur", shape)
        width = as_floats(width)
        if width.shape:
            raise InputError(f"GaussianBlur: width has shape {width.shape}; give one number")
        if is_known(width) and not 0 < float(width) < np.inf:
            raise InputError(f"GaussianBlur: width is {width}; it must be positive, in pixels")
        with at_once(width):
            rows, columns = (_gaussian(size, width) for size in shape[:2])
        super().__init__(shape, rows, columns)


def _check_factor(name: str, shape: tuple[int, ...], factor: int) -> tuple[int, ...]:
    shape = check_image(name, shape)
    if factor < 1:
        raise InputError(f"{name}: factor is {factor}; it must be at least 1")
    if shape[0] % factor or shape[1] % factor:
        raise InputError(f"{name}: {shape} does not divide by {factor}; give a factor that does")
    return shape


class BlockDownsample(Separable):
    """Means over ``factor`` x ``factor`` blocks of pixels.

    Args:
        shape: (h, w) or (h, w, c); h and w divide by ``factor``.
        factor: side of a block, in pixels.

    Raises:
        InputError: a shape of other rank, or that does not divide.
    """

    def __init__(self, shape: tuple[int, ...], factor: int):
        shape = _check_factor("BlockDownsample", shape, factor)
        block = np.full((1, factor), 1.0 / factor)
        rows, columns = (np.kron(np.eye(size // factor), block) for size in shape[:2])
        super().__init__(shape, rows, columns)


def _bicubic(size: int, factor: int) -> np.ndarray:
    """(size / factor, size): Keys' cubic (a = -0.5) stretched by the factor; edges reflected."""
    matrix = np.zeros((size // factor, size))
    for row in range(size // factor):
        centre = (row + 0.5) * factor - 0.5
        taps = np.arange(np.floor(centre - 2 * factor), np.ceil(centre + 2 * factor) + 1)
        u = np.abs(taps - centre) / factor
        near = 1.5 * u**3 - 2.5 * u**2 + 1.0
        far = -0.5 * u**3 + 2.5 * u**2 - 4.0 * u + 2.0
        weights = np.where(u <= 1, near, np.where(u < 2, far, 0.0))
        inside = np.abs(np.mod(taps + 0.5, 2 * size) - size)  # reflected about the borders
        index = (size - inside - 0.5).astype(int)
        np.add.at(matrix[row], index, weights / weights.sum())
    return matrix


class BicubicDownsample(Separable):
    """Downsampling by antialiased bicubic interpolation, as image libraries do it.

    Args:
        shape: (h, w) or (h, w, c); h and w divide by ``factor``.
        factor: how many pixels become one, each way.

    Raises:
        InputError: a shape of other rank, or that does not divide.
    """

    def __init__(self, shape: tuple[int, ...], factor: int):
        shape = _check_factor("BicubicDownsample", shape, factor)
        super().__init__(shape, _bicubic(shape[0], factor), _bicubic(shape[1], factor))
