"""What every linear operator is: a pytree, callable on one event, with an adjoint."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import Module, static
from smcdiff.errors import InputError

LARGEST_DENSE = 4096
"""Entries of event or observation, whichever are fewer, up to which a dense SVD is taken."""


def matrix_of(function: Callable, event_shape: tuple[int, ...]) -> Float[Array, "m d"]:
    """The dense matrix of a linear function of one event, on flat events."""

    def column(x):
        return jnp.ravel(jnp.asarray(function(x.reshape(event_shape))))

    return jax.vmap(column, out_axes=1)(jnp.eye(math.prod(event_shape)))


def check_image(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as a tuple; raises ``InputError`` unless it is (h, w) or (h, w, c)."""
    shape = tuple(shape)
    if len(shape) not in (2, 3):
        raise InputError(f"{name}: shape is {shape}; it must be (h, w) or (h, w, c)")
    return shape


class LinearOperator(Module):
    """Base class; subclasses are frozen pytrees and define the shapes and ``apply``.

    ``outer @ inner`` is the composition.
    """

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
            InputError: x is not of ``in_shape``, or complex.
        """
        if jnp.shape(x) != self.in_shape:
            raise InputError(
                f"{type(self).__name__}: the input has shape {jnp.shape(x)}, the operator takes"
                f" {self.in_shape}"
            )
        self._check_real(x)
        return self.apply(x)

    def _check_real(self, x) -> None:
        if jnp.iscomplexobj(x):
            raise InputError(
                f"{type(self).__name__}: the input is complex, and the operator takes real numbers;"
                " give it the real and the imaginary part one after the other, or compute with"
                " jax.numpy (jnp.fft, say) in the model"
            )

    def __matmul__(self, inner: LinearOperator) -> Composition:
        """The composition: first ``inner``, then this."""
        return Composition(self, inner)

    def adjoint(self, y: Float[Array, "*observation"]) -> Float[Array, "*event"]:
        """The transpose: <A x, y> = <x, A* y>.

        Raises:
            InputError: y is not of ``out_shape``, or complex.
        """
        if jnp.shape(y) != self.out_shape:
            raise InputError(
                f"{type(self).__name__}: the adjoint's input has shape {jnp.shape(y)}, it takes"
                f" {self.out_shape}"
            )
        self._check_real(y)
        (x,) = jax.linear_transpose(self.apply, jnp.zeros(self.in_shape, jnp.result_type(y)))(y)
        return x

    def as_matrix(self) -> Float[Array, "m d"]:
        """The dense matrix on flat events; built column by column."""
        return matrix_of(self.apply, self.in_shape)

    def svd(self) -> SVD:
        """The thin singular value decomposition; dense where the operator knows none better.

        Raises:
            InputError: an operator too large for a dense decomposition.
        """
        from smcdiff.operators.dense import Dense
        from smcdiff.operators.reshape import Reshape

        rows, columns = math.prod(self.out_shape), math.prod(self.in_shape)
        if min(rows, columns) > LARGEST_DENSE:
            raise InputError(
                f"{type(self).__name__}: a dense SVD of {rows} x {columns} is too large; use a"
                " proposal that needs none, for example proposals.KrylovMomentMatched()"
            )
        left, values, right = jnp.linalg.svd(self.as_matrix(), full_matrices=False)
        return SVD(
            Reshape((rows,), self.out_shape) @ Dense(left),
            values,
            Dense(right) @ Reshape(self.in_shape, (columns,)),
        )


class ImageOperator(LinearOperator):
    """Base of operators on images that are made from something else than their arrays.

    Attributes:
        event: (h, w) or (h, w, c).
    """

    event: tuple[int, ...] = static()

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The image's shape."""
        return self.event


class Composition(LinearOperator):
    """``outer @ inner``.

    Attributes:
        outer: applied last.
        inner: applied first; its observations are the events of ``outer``.

    Raises:
        InputError: shapes that do not fit.
    """

    outer: LinearOperator
    inner: LinearOperator

    def __post_init__(self):
        if self.outer.in_shape != self.inner.out_shape:
            raise InputError(
                f"composition: {type(self.inner).__name__} returns {self.inner.out_shape},"
                f" {type(self.outer).__name__} takes {self.outer.in_shape}"
            )

    @property
    def in_shape(self) -> tuple[int, ...]:
        """That of ``inner``."""
        return self.inner.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """That of ``outer``."""
        return self.outer.out_shape

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, "*observation"]:
        """Both, one after the other."""
        return self.outer.apply(self.inner.apply(x))


class SVD(Module):
    """A thin singular value decomposition, A = left diag(values) right.

    Attributes:
        left: operator from (r,) to observations, with orthonormal columns U.
        values: (r,) singular values, largest first; zeros and repetitions are allowed.
        right: operator from events to (r,), with orthonormal rows V'.
    """

    left: LinearOperator
    values: Float[Array, " r"]
    right: LinearOperator

    @classmethod
    def of_orthonormal(cls, left: LinearOperator, right: LinearOperator) -> SVD:
        """Of an operator whose singular values are all one."""
        return cls(left, jnp.ones(right.out_shape), right)

    def pseudo_inverse(self, y: Float[Array, "*observation"]) -> Float[Array, "*event"]:
        """The event of least norm among those that fit y best.

        Values below 1e-6 of the largest count as zero.
        """
        kept = self.values > 1e-6 * jnp.max(self.values)
        inverse = jnp.where(kept, 1.0 / jnp.where(kept, self.values, 1.0), 0.0)
        return self.right.adjoint(inverse * self.left.adjoint(y))
