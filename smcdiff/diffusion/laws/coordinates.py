"""Singular coordinates of a linear operator."""

from __future__ import annotations

from jaxtyping import Array, Bool, Float

from smcdiff.base.module import Module
from smcdiff.operators import LinearOperator


class SingularCoordinates(Module):
    """What an operator sees of a flat event, one singular direction after the other: diag(s) V'.

    Attributes:
        values: s, (r,) singular values, in any order; zero where nothing is seen.
        directions: V', operator from (d,) to (r,) with orthonormal rows.
    """

    values: Float[Array, " r"]
    directions: LinearOperator

    @property
    def seen(self) -> Bool[Array, " r"]:
        """Which directions the operator sees at all."""
        return self.values > 0.0

    def project(self, x: Float[Array, " d"]) -> Float[Array, " r"]:
        """What the operator sees of x: s V' x."""
        return self.values * self.directions(x)

    def adjoint(self, z: Float[Array, " r"]) -> Float[Array, " d"]:
        """The adjoint of `project`: V s z."""
        return self.directions.adjoint(self.values * z)
