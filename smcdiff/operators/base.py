"""A linear map as a pytree: callable on one event, with an adjoint and a dense matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from smcdiff.base.module import Module
from smcdiff.errors import InputError
from smcdiff.operators._recording import record

LARGEST_DENSE = 4096
"""Entries of event or observation, whichever are fewer, up to which a dense SVD is taken."""


def matrix_of(function: Callable, event_shape: tuple[int, ...]) -> Float[Array, "m d"]:
    """The dense matrix of a linear function of one event, on flat events."""

    def column(x):
        return jnp.ravel(jnp.asarray(function(x.reshape(event_shape))))

    return jax.vmap(column, out_axes=1)(jnp.eye(math.prod(event_shape)))


class LinearMap(Module):
    """What an operator computes; `LinearOperator` adds what is known of it."""

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

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*observation"]:
        """The operator, without a check of shapes."""
        raise NotImplementedError(f"{type(self).__name__} must define apply")

    def __call__(self, x: Num[Array | np.ndarray, "*event"]) -> Num[Array, "*observation"]:
        """The observation of one event; seen by `smcdiff.operators._recording.record_calls`.

        Raises:
            InputError: x is not of ``in_shape``, or complex.
        """
        self._check("input", x, self.in_shape)
        values = jnp.asarray(x)
        y = self.apply(values.astype(jnp.result_type(values, float)))
        if y.shape != self.out_shape:
            raise InputError(
                f"{type(self).__name__}: apply returns shape {y.shape}, and out_shape is"
                f" {self.out_shape}"
            )
        record(self, x, y)
        return y

    def adjoint(self, y: Num[Array | np.ndarray, "*observation"]) -> Num[Array, "*event"]:
        """The transpose: <A x, y> = <x, A* y>.

        Raises:
            InputError: y is not of ``out_shape``, or complex.
        """
        self._check("adjoint's input", y, self.out_shape)
        event = jax.ShapeDtypeStruct(self.in_shape, jnp.result_type(y, float))
        dtype = jax.eval_shape(self.apply, event).dtype
        (x,) = jax.linear_transpose(self.apply, event)(jnp.asarray(y, dtype))
        return x

    def _check(self, what: str, value: Any, shape: tuple[int, ...]) -> None:
        name = type(self).__name__
        if jnp.shape(value) != shape:
            raise InputError(
                f"{name}: the {what} has shape {jnp.shape(value)}, the operator takes {shape}"
            )
        if jnp.iscomplexobj(value):
            raise InputError(
                f"{name}: the {what} is complex, and the operator takes real numbers;"
                " give it the real and the imaginary part one after the other, or compute with"
                " jax.numpy (jnp.fft, say) in the model"
            )

    def as_matrix(self) -> Float[Array, "m d"]:
        """The dense matrix on flat events, built by rows or columns, whichever are fewer."""
        if math.prod(self.out_shape) < math.prod(self.in_shape):
            return matrix_of(self.adjoint, self.out_shape).T
        return matrix_of(self.apply, self.in_shape)
