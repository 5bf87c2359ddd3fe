"""General two-dimensional blur, and motion blur."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from smcdiff.base.module import set_fields, static
from smcdiff.errors import InputError
from smcdiff.operators._images import ImageOperator, check_image
from smcdiff.operators.algebra import SVD, LinearOperator, dense_svd
from smcdiff.operators.fourier import FourierFilter, MaskedFourier, Transfer
from smcdiff.operators.structure import EXACT, as_floats, is_known


class Convolution(ImageOperator):
    """Convolution of each channel with a filter, the result as large as the image.

    A circular one has a decomposition by its Fourier transform. Otherwise it is dense; blurs that
    are separable, as `GaussianBlur`, know better.

    Args:
        shape: (h, w) or (h, w, c).
        kernel: (a, b) filter, a and b odd; its centre stays in place.
        circular: wrap around the borders; else outside the image is zero.

    Raises:
        InputError: a shape of other rank, or a filter of even or too large size.
    """

    kernel: Float[Array, "a b"]
    circular: bool = static()

    def __init__(self, shape: tuple[int, ...], kernel: ArrayLike, circular: bool = False):
        name = type(self).__name__
        kernel = as_floats(kernel)
        set_fields(self, event=check_image(name, shape), circular=circular, kernel=kernel)
        sizes = kernel.shape
        if kernel.ndim != 2 or not all(size % 2 for size in sizes):
            raise InputError(f"{name}: the filter has shape {sizes}; give (a, b), both odd")
        if sizes[0] > self.event[0] or sizes[1] > self.event[1]:
            raise InputError(
                f"{name}: a filter of {sizes} is larger than the image {tuple(shape)}; give a"
                " smaller one"
            )
        if is_known(kernel) and not np.all(np.isfinite(kernel)):
            raise InputError(f"{name}: the filter has NaN or infinite values; write finite ones")

    @property
    def structured(self) -> bool:
        """Where it is circular."""
        return self.circular

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*event"]:
        """The blurred image."""
        height, width = self.kernel.shape
        image = x.reshape(*x.shape[:2], -1)
        border = ((height // 2,) * 2, (width // 2,) * 2, (0, 0))
        padded = jnp.pad(image, border, mode="wrap" if self.circular else "constant")
        images = jnp.moveaxis(padded, -1, 0)[:, None]
        flipped = self.kernel[None, None, ::-1, ::-1].astype(x.dtype)
        out = jax.lax.conv_general_dilated(images, flipped, (1, 1), "VALID", precision=EXACT)
        return jnp.moveaxis(out[:, 0], 0, -1).reshape(x.shape)

    def _as_filter(self) -> FourierFilter:
        """The same as a multiplication of Fourier coefficients, if it is circular."""
        return FourierFilter(self.event, Transfer.of_filter(self.kernel, self.event))

    def svd(self) -> SVD:
        """That of the multiplication of Fourier coefficients; dense if it is not circular.

        Raises:
            InputError: it is not circular, and the matrix is too large.
        """
        return self._as_filter().svd() if self.circular else dense_svd(self)

    def compose_after(self, inner: LinearOperator) -> LinearOperator | None:
        """Circular convolutions are one filter."""
        other = isinstance(inner, FourierFilter) or (
            isinstance(inner, Convolution) and inner.circular
        )
        return self._as_filter() @ inner if self.circular and other else None

    def compose_before(self, outer: LinearOperator) -> LinearOperator | None:
        """A circular convolution goes into what is known by its Fourier transform."""
        if self.circular and isinstance(outer, FourierFilter | MaskedFourier):
            return self._as_filter().compose_before(outer)
        return None


def _streak(length: float, angle: float) -> np.ndarray:
    """A normalised line through the centre, antialiased; odd sizes."""
    radius = int(np.ceil(length / 2))
    grid = np.arange(-radius, radius + 1)
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    # Points along the line, each shared between the four pixels around it.
    for position in np.linspace(-length / 2, length / 2, 50 * (radius + 1)):
        down, right = -position * np.sin(np.radians(angle)), position * np.cos(np.radians(angle))
        rows = np.maximum(1.0 - np.abs(grid - down), 0.0)
        columns = np.maximum(1.0 - np.abs(grid - right), 0.0)
        kernel += np.outer(rows, columns)
    return kernel / kernel.sum()


class MotionBlur(Convolution):
    """Blur along a straight line, as of a moving camera; outside the image is zero.

    Args:
        shape: (h, w) or (h, w, c).
        length: of the line, in pixels.
        angle: of the line against the rows, in degrees, counterclockwise.

    Raises:
        InputError: a shape of other rank, or a length that is not positive or too large.
    """

    def __init__(self, shape: tuple[int, ...], length: float, angle: float = 0.0):
        if not 0 < length <= max(shape):
            raise InputError(
                f"MotionBlur: length is {length}; it must be positive, in pixels, and fit into the"
                f" image {tuple(shape)}"
            )
        if not np.isfinite(angle):
            raise InputError(f"MotionBlur: angle is {angle}; give it in degrees, for example 45")
        super().__init__(shape, _streak(length, angle))
