"""Separable Gaussian blur."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.errors import InputError
from smcdiff.operators.base import LinearOperator


def _band(size: int, width: float) -> np.ndarray:
    """(size, size): rows of a normalised Gaussian; what falls beyond the edge is lost."""
    distance = np.arange(size)[:, None] - np.arange(size)
    radius = np.arange(-size, size + 1)
    band = np.exp(-0.5 * (distance / width) ** 2)
    return (band / np.exp(-0.5 * (radius / width) ** 2).sum()).astype(np.float32)


@jax.tree_util.register_pytree_node_class
class GaussianBlur(LinearOperator):
    """Convolution of each channel with a Gaussian; outside the image is zero.

    Args:
        shape: (h, w) or (h, w, c).
        width: standard deviation of the Gaussian, in pixels.

    Raises:
        InputError: a shape of other rank, or a width that is not positive.
    """

    rows: Float[Array, "h h"]
    columns: Float[Array, "w w"]

    def __init__(self, shape: tuple[int, ...], width: float):
        shape = tuple(shape)
        if len(shape) not in (2, 3):
            raise InputError(f"GaussianBlur: shape is {shape}; it must be (h, w) or (h, w, c)")
        if not width > 0:
            raise InputError(f"GaussianBlur: width is {width}; it must be positive, in pixels")
        self.rows = jnp.asarray(_band(shape[0], width))
        self.columns = jnp.asarray(_band(shape[1], width))
        self._event = shape

    def tree_flatten(self):
        """The two band matrices, and the shape."""
        return (self.rows, self.columns), self._event

    @classmethod
    def tree_unflatten(cls, shape, bands) -> GaussianBlur:
        """From what `tree_flatten` gave."""
        operator = object.__new__(cls)
        operator.rows, operator.columns = bands
        operator._event = shape
        return operator

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The image's shape."""
        return self._event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The image's shape."""
        return self._event

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, "*event"]:
        """The blurred image."""
        return jnp.einsum("ij,jk...,lk->il...", self.rows, x, self.columns)
