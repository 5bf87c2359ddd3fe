"""Separable maps of images: Gaussian blur, block averages, bicubic downsampling."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.base.module import set_fields
from smcdiff.errors import InputError
from smcdiff.operators.base import SVD, ImageOperator, check_image
from smcdiff.operators.mask import Mask
from smcdiff.operators.reshape import Reshape


class Separable(ImageOperator):
    """The same matrix on all columns of an image, another on all rows, channel by channel.

    Args:
        shape: (h, w) or (h, w, c).
        rows: (h', h), acts down the columns.
        columns: (w', w), acts along the rows.

    Raises:
        InputError: a shape of other rank, or matrices that do not fit it.
    """

    rows: Float[Array, "a h"]
    columns: Float[Array, "b w"]

    def __init__(self, shape: tuple[int, ...], rows, columns):
        event = check_image(type(self).__name__, shape)
        set_fields(self, event=event, rows=jnp.asarray(rows), columns=jnp.asarray(columns))
        fits = (self.rows.shape[-1:], self.columns.shape[-1:]) == (shape[:1], shape[1:2])
        if not fits or self.rows.ndim != 2 or self.columns.ndim != 2:
            raise InputError(
                f"{type(self).__name__}: matrices of {self.rows.shape} and {self.columns.shape} do"
                f" not act on images of {tuple(shape)}"
            )

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(h', w') or (h', w', c)."""
        return (self.rows.shape[0], self.columns.shape[0], *self.event[2:])

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, "*out"]:
        """Both matrices applied."""
        return jnp.einsum("ij,jk...,lk->il...", self.rows, x, self.columns)

    def svd(self) -> SVD:
        """From the decompositions of the two matrices."""
        down, down_values, up = jnp.linalg.svd(self.rows, full_matrices=False)
        left, values, right = jnp.linalg.svd(self.columns, full_matrices=False)
        channels = self.event[2:]
        inner = (down_values.shape[0], values.shape[0], *channels)
        table = down_values[:, None] * values
        table = jnp.broadcast_to(table.reshape(table.shape + (1,) * len(channels)), inner)
        order = jnp.argsort(-table.ravel(), stable=True)
        sort = Mask(order.astype(jnp.int32), inner)
        unsort = Mask(jnp.argsort(order).astype(jnp.int32), (order.shape[0],))
        columns = Separable(inner, down, left) @ Reshape((order.shape[0],), inner) @ unsort
        return SVD(columns, table.ravel()[order], sort @ Separable(self.event, up, right))


def _gaussian(size: int, width: float) -> np.ndarray:
    """(size, size): rows of a normalised Gaussian; what falls beyond the edge is lost."""
    distance = np.arange(size)[:, None] - np.arange(size)
    radius = np.arange(-size, size + 1)
    band = np.exp(-0.5 * (distance / width) ** 2)
    return (band / np.exp(-0.5 * (radius / width) ** 2).sum()).astype(np.float32)


class GaussianBlur(Separable):
    """Convolution of each channel with a Gaussian; outside the image is zero.

    Args:
        shape: (h, w) or (h, w, c).
        width: standard deviation of the Gaussian, in pixels.

    Raises:
        InputError: a shape of other rank, or a width that is not positive.
    """

    def __init__(self, shape: tuple[int, ...], width: float):
        shape = check_image("GaussianBlur", shape)
        if not 0 < width < np.inf:
            raise InputError(f"GaussianBlur: width is {width}; it must be positive, in pixels")
        super().__init__(shape, _gaussian(shape[0], width), _gaussian(shape[1], width))


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
        block = np.full((1, factor), 1.0 / factor, np.float32)
        matrices = (np.kron(np.eye(n // factor, dtype=np.float32), block) for n in shape[:2])
        super().__init__(shape, *matrices)


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
    return matrix.astype(np.float32)


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
