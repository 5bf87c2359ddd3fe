"""General two-dimensional blur, and motion blur."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from smcdiff.base.module import set_fields, static
from smcdiff.errors import InputError
from smcdiff.operators.base import ImageOperator, check_image


class Convolution(ImageOperator):
    """Convolution of each channel with a filter, the result as large as the image.

    Args:
        shape: (h, w) or (h, w, c).
        kernel: (a, b) filter, a and b odd; its centre stays in place.
        circular: wrap around the borders; else outside the image is zero.

    Raises:
        InputError: a shape of other rank, or a filter of even or too large size.
    """

    kernel: Float[Array, "a b"]
    circular: bool = static()

    def __init__(self, shape: tuple[int, ...], kernel, circular: bool = False):
        name = type(self).__name__
        kernel = jnp.asarray(kernel, jnp.result_type(float))
        set_fields(self, event=check_image(name, shape), circular=circular, kernel=kernel)
        sizes = self.kernel.shape
        if self.kernel.ndim != 2 or not all(size % 2 for size in sizes):
            raise InputError(f"{name}: the filter has shape {sizes}; give (a, b), both odd")
        if sizes[0] > self.event[0] or sizes[1] > self.event[1]:
            raise InputError(
                f"{name}: a filter of {sizes} is larger than the image {tuple(shape)}; give a"
                " smaller one"
            )
        if not isinstance(self.kernel, Tracer) and not np.all(np.isfinite(self.kernel)):
            raise InputError(f"{name}: the filter has NaN or infinite values; write finite ones")

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The image's shape."""
        return self.event

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, "*event"]:
        """The blurred image."""
        height, width = self.kernel.shape
        image = x.reshape(*x.shape[:2], -1)
        border = ((height // 2,) * 2, (width // 2,) * 2, (0, 0))
        padded = jnp.pad(image, border, mode="wrap" if self.circular else "constant")
        images = jnp.moveaxis(padded, -1, 0)[:, None]
        flipped = self.kernel[None, None, ::-1, ::-1].astype(x.dtype)
        out = jax.lax.conv_general_dilated(images, flipped, (1, 1), "VALID")
        return jnp.moveaxis(out[:, 0], 0, -1).reshape(x.shape)


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
