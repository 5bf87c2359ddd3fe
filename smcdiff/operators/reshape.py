"""The same entries in another shape."""

from __future__ import annotations

import math

from jaxtyping import Array, Float

from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.operators.base import SVD, LinearOperator


class Reshape(LinearOperator):
    """The entries of an event, in row-major order, in another shape.

    Attributes:
        event: shape of an event.
        result: the shape that they get, with as many entries.
    """

    event: tuple[int, ...] = static()
    result: tuple[int, ...] = static()

    def __post_init__(self):
        if math.prod(self.event) != math.prod(self.result):
            raise InputError(f"Reshape: {self.event} and {self.result} have other sizes")

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return self.event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The new shape."""
        return self.result

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, "*out"]:
        """The entries in their new shape."""
        return x.reshape(self.result)

    def svd(self) -> SVD:
        """All singular values are one."""
        flat = (math.prod(self.event),)
        return SVD.of_orthonormal(Reshape(flat, self.result), Reshape(self.event, flat))
