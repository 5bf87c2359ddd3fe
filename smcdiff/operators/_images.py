"""Operators on images."""

from __future__ import annotations

from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.operators.algebra import LinearOperator


def check_image(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as a tuple; raises ``InputError`` unless it is (h, w) or (h, w, c)."""
    shape = tuple(shape)
    if len(shape) not in (2, 3):
        raise InputError(f"{name}: shape is {shape}; it must be (h, w) or (h, w, c)")
    return shape


class ImageOperator(LinearOperator):
    """Base of operators whose observation is an image of the same shape, where they say no other.

    Attributes:
        event: (h, w) or (h, w, c).
    """

    event: tuple[int, ...] = static()

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The image's shape."""
        return self.event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The image's shape."""
        return self.event
