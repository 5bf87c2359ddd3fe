"""A dense matrix on flat events."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.errors import InputError
from smcdiff.operators.base import LinearOperator


class Dense(LinearOperator):
    """y = matrix x.

    Attributes:
        matrix: (d_y, d_x), an array or nested lists.
    """

    matrix: Float[Array, "m d"]

    def __post_init__(self):
        if isinstance(self.matrix, (list, tuple)):
            object.__setattr__(self, "matrix", jnp.asarray(self.matrix))
        if getattr(self.matrix, "ndim", 2) != 2:
            raise InputError(f"Dense: the matrix has shape {self.matrix.shape}; it must be 2-D")

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(d_x,)."""
        return self.matrix.shape[1:]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(d_y,)."""
        return self.matrix.shape[:1]

    def apply(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """The matrix times x."""
        return self.matrix @ x
