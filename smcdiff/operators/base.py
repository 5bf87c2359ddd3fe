"""What every linear operator is: a pytree, callable on one event, with an adjoint."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.errors import InputError


class LinearOperator:
    """Base class; subclasses are frozen pytrees and define the shapes and ``apply``."""

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        raise NotImplementedError

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of an observation."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(out_shape, in_shape)."""
        return self.out_shape, self.in_shape

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, "*observation"]:
        """The operator, without a check of shapes."""
        raise NotImplementedError

    def __call__(self, x: Float[Array, "*event"]) -> Float[Array, "*observation"]:
        """The observation of one event.

        Raises:
            InputError: x is not of ``in_shape``.
        """
        if jnp.shape(x) != self.in_shape:
            raise InputError(
                f"{type(self).__name__}: the input has shape {jnp.shape(x)}, the operator takes"
                f" {self.in_shape}"
            )
        return self.apply(x)

    def adjoint(self, y: Float[Array, "*observation"]) -> Float[Array, "*event"]:
        """The transpose: <A x, y> = <x, A* y>.

        Raises:
            InputError: y is not of ``out_shape``.
        """
        if jnp.shape(y) != self.out_shape:
            raise InputError(
                f"{type(self).__name__}: the adjoint's input has shape {jnp.shape(y)}, it takes"
                f" {self.out_shape}"
            )
        (x,) = jax.linear_transpose(self.apply, jnp.zeros(self.in_shape, jnp.result_type(y)))(y)
        return x
