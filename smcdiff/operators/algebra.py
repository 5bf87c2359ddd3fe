"""Linear operators and their algebra: compositions, multiples and singular value decompositions.

With A = left diag(values) right, a decomposition is kept, and nothing dense is built,

- of A Q where Q has orthonormal rows: right Q takes the place of right;
- of Q A where Q has orthonormal columns: Q left takes the place of left;
- of a choice of rows of A, and of diag(f) A, where the rows of A are orthogonal to each other.

Two classes that know each other (two `Kronecker`, say) become one operator when they are composed.
The classes of this module make each other, so they share it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from smcdiff.base.module import Module, set_fields, static
from smcdiff.errors import InputError
from smcdiff.operators.base import LARGEST_DENSE, LinearMap
from smcdiff.operators.structure import EXACT, Rows, Structure, as_floats


class LinearOperator(LinearMap):
    """Base class of operators; subclasses are frozen pytrees, define the shapes and ``apply``.

    ``outer @ inner`` is the composition; ``0.5 * operator`` and ``weights * operator`` scale the
    observation. A subclass that knows its decomposition defines ``svd`` and ``structured`` too.
    """

    __array_ufunc__ = None  # NumPy leaves ``array * operator`` to `__rmul__`

    @property
    def structure(self) -> Structure:
        """What is known without any work."""
        return Structure()

    @property
    def structured(self) -> bool:
        """Whether ``svd`` needs no dense matrix of the operator; known without any work."""
        return self.structure.rows > Rows.ANY

    @property
    def orthogonal_rows(self) -> bool:
        """Whether the rows are known to be orthogonal to each other."""
        return self.structure.rows >= Rows.ORTHOGONAL

    def svd(self) -> SVD:
        """The thin singular value decomposition; dense where no structure is known.

        Raises:
            InputError: no structure is known, and the matrix is too large.
        """
        if self.structure.rows < Rows.ORTHONORMAL:
            return dense_svd(self)
        flat = (math.prod(self.out_shape),)
        right = Reshape(self.out_shape, flat) @ self
        return SVD(Reshape(flat, self.out_shape), jnp.ones(flat), right)

    def scaled_svd(self, factor: Float[Array, "..."]) -> SVD:
        """The decomposition of ``factor * self``; see `Scaled`.

        Raises:
            InputError: as `svd`.
        """
        if factor.ndim and not self.orthogonal_rows:
            return dense_svd(Scaled(self, factor))
        svd, factor = self.svd(), factor.ravel() if factor.ndim else factor
        signs = jnp.where(factor < 0, -1.0, 1.0).astype(factor.dtype)
        return SVD(svd.left, jnp.abs(factor) * svd.values, Scaled(svd.right, signs))

    @property
    def picks_entries(self) -> bool:
        """Whether each observed entry is a multiple of one entry of x, none of them twice."""
        return self.structure.selects

    def compose_after(self, inner: LinearOperator) -> LinearOperator | None:
        """``self @ inner`` as something better than a `Composition`, where this class knows it."""
        return None

    def compose_before(self, outer: LinearOperator) -> LinearOperator | None:
        """``outer @ self`` as something better than a `Composition`, where this class knows it."""
        return None

    def __matmul__(self, inner: LinearOperator) -> LinearOperator:
        """The composition: first ``inner``, then this.

        Raises:
            InputError: shapes that do not fit.
        """
        if not isinstance(inner, LinearOperator):
            return NotImplemented
        _check_fit(self, inner)
        merged = _merged(self, inner)
        return Composition(self, inner) if merged is None else merged

    def __mul__(self, factor: Any) -> Scaled:
        """The observation times a factor, a number or of its shape."""
        return NotImplemented if isinstance(factor, LinearOperator) else Scaled(self, factor)

    __rmul__ = __mul__


class SVD(Module):
    """A thin singular value decomposition, A = left diag(values) right.

    Attributes:
        left: operator from (r,) to observations, with orthonormal columns U.
        values: (r,) singular values in any order, not negative; zeros and repetitions are allowed.
            Directions that A cannot see may be left out: r is at most the smaller side of A.
        right: operator from events to (r,), with orthonormal rows V'.
    """

    left: LinearOperator
    values: Float[Array, " r"]
    right: LinearOperator

    def pseudo_inverse(self, y: Num[Array | np.ndarray, "*observation"]) -> Num[Array, "*event"]:
        """The event of least norm among those that fit y best.

        Values below 1e-6 of the largest count as zero.
        """
        kept = self.values > 1e-6 * jnp.max(self.values)
        inverse = jnp.where(kept, 1.0 / jnp.where(kept, self.values, 1.0), 0.0)
        return self.right.adjoint(inverse * self.left.adjoint(y))


def dense_svd(operator: LinearOperator) -> SVD:
    """The decomposition of an operator's dense matrix, whatever is known of it.

    Raises:
        InputError: a matrix with more than `LARGEST_DENSE` rows and columns.
    """
    rows, columns = math.prod(operator.out_shape), math.prod(operator.in_shape)
    if min(rows, columns) > LARGEST_DENSE:
        raise InputError(
            f"{type(operator).__name__}: it has no structured decomposition, and a dense one of"
            f" {rows} x {columns} is too large; use a proposal that needs none,"
            " proposals.KrylovMomentMatched() or proposals.Twisted()"
        )
    left, values, right = jnp.linalg.svd(operator.as_matrix(), full_matrices=False)
    return SVD(Dense(left, result=operator.out_shape), values, Dense(right, operator.in_shape))


class Dense(LinearOperator):
    """y = matrix x.

    Args:
        matrix: (d_y, d_x), an array or nested lists.
        event: shape of an event; (d_x,) if None. Events of another shape are taken flat.
        result: shape of an observation; (d_y,) if None.

    Raises:
        InputError: a matrix that is none, or of another size.
    """

    matrix: Float[Array, "m d"]
    event: tuple[int, ...] = static()
    result: tuple[int, ...] = static()

    def __init__(
        self,
        matrix: ArrayLike | Sequence[Any],
        event: tuple[int, ...] | None = None,
        result: tuple[int, ...] | None = None,
    ):
        matrix = as_floats(matrix)
        if matrix.ndim != 2:
            raise InputError(f"Dense: the matrix has shape {matrix.shape}; it must be 2-D")
        event = matrix.shape[1:] if event is None else tuple(event)
        result = matrix.shape[:1] if result is None else tuple(result)
        if (math.prod(result), math.prod(event)) != matrix.shape:
            raise InputError(f"Dense: a matrix of {matrix.shape} does not take {event} to {result}")
        set_fields(self, matrix=matrix, event=event, result=result)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """``event``."""
        return self.event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """``result``."""
        return self.result

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*observation"]:
        """The matrix times x."""
        return jnp.matmul(self.matrix, x.ravel(), precision=EXACT).reshape(self.out_shape)

    def as_matrix(self) -> Float[Array, "m d"]:
        """The matrix."""
        return self.matrix


class Reshape(LinearOperator):
    """The entries of an event, in row-major order, in another shape.

    Attributes:
        event: shape of an event.
        result: the shape that they get, with as many entries.

    Raises:
        InputError: shapes of different sizes.
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

    @property
    def structure(self) -> Structure:
        """The identity, but for the shape."""
        return Structure(Rows.ORTHONORMAL, isometry=True, selects=True)

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*observation"]:
        """The entries in their new shape."""
        return x.reshape(self.result)

    def compose_after(self, inner: LinearOperator) -> LinearOperator | None:
        """One change of shape after another is one; none is none."""
        if self.event == self.result:
            return inner
        return Reshape(inner.event, self.result) if isinstance(inner, Reshape) else None

    def compose_before(self, outer: LinearOperator) -> LinearOperator | None:
        """To no change of shape the outer operator need not be added."""
        return outer if self.event == self.result else None


def _check_fit(outer: LinearOperator, inner: LinearOperator) -> None:
    """Raises ``InputError`` where one operator cannot follow the other."""
    if outer.in_shape != inner.out_shape:
        raise InputError(
            f"composition: {type(inner).__name__} returns {inner.out_shape},"
            f" {type(outer).__name__} takes {outer.in_shape}"
        )


def _merged(outer: LinearOperator, inner: LinearOperator) -> LinearOperator | None:
    """``outer @ inner`` as the class of one of them knows it."""
    merged = inner.compose_before(outer)
    return outer.compose_after(inner) if merged is None else merged


class Composition(LinearOperator):
    """``outer @ inner``; of three or more, ``outer`` is no composition.

    Attributes:
        outer: applied last.
        inner: applied first; its observations are the events of ``outer``.

    Raises:
        InputError: shapes that do not fit.
    """

    outer: LinearOperator
    inner: LinearOperator

    def __post_init__(self):
        _check_fit(self.outer, self.inner)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """That of ``inner``."""
        return self.inner.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """That of ``outer``."""
        return self.outer.out_shape

    @property
    def structure(self) -> Structure:
        """Orthonormal rows of ``inner`` keep the rows of ``outer`` as they are."""
        outer, inner = self.outer.structure, self.inner.structure
        rows = Rows.ANY
        if inner.rows == Rows.ORTHONORMAL:
            rows = outer.rows
        elif outer.selects and (outer.isometry or inner.rows == Rows.ORTHOGONAL):
            rows = inner.rows
        isometry, selects = outer.isometry and inner.isometry, outer.selects and inner.selects
        return Structure(rows, isometry, selects)

    @property
    def structured(self) -> bool:
        """Whether one of the rules of the module applies."""
        outer, inner = self.outer.structure, self.inner.structure
        return (
            self.structure.rows > Rows.ANY
            or (self.outer.structured and inner.rows == Rows.ORTHONORMAL)
            or (outer.isometry and self.inner.structured)
        )

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*observation"]:
        """Both, one after the other."""
        return self.outer.apply(self.inner.apply(x))

    def svd(self) -> SVD:
        """By the rules of the module; dense where none applies.

        Raises:
            InputError: none applies, and the matrix is too large.
        """
        outer, inner = self.outer, self.inner
        if outer.structured and inner.structure.rows == Rows.ORTHONORMAL:
            svd = outer.svd()
            return SVD(svd.left, svd.values, svd.right @ inner)
        if outer.structure.selects and inner.orthogonal_rows:
            svd, flat = inner.svd(), Reshape(self.out_shape, (math.prod(self.out_shape),))
            values = jnp.ravel(outer.apply(svd.left.apply(svd.values)))
            left = Reshape(flat.out_shape, self.out_shape)
            return SVD(left, values, (flat @ outer @ svd.left) @ svd.right)
        if outer.structure.isometry and inner.structured:
            svd = inner.svd()
            return SVD(outer @ svd.left, svd.values, svd.right)
        return dense_svd(self)

    def scaled_svd(self, factor: Float[Array, "..."]) -> SVD:
        """By the rules of the module.

        Raises:
            InputError: as `svd`.
        """
        if factor.ndim and self.structure.rows == Rows.PARALLEL:
            if self.inner.structure.rows == Rows.ORTHONORMAL:
                svd = self.outer.scaled_svd(factor)
                return SVD(svd.left, svd.values, svd.right @ self.inner)
            svd = self.inner.scaled_svd(self.outer.adjoint(factor))
            return SVD(self.outer @ svd.left, svd.values, svd.right)
        return super().scaled_svd(factor)

    def compose_after(self, inner: LinearOperator) -> LinearOperator | None:
        """To the right first."""
        return self.outer @ (self.inner @ inner)

    def compose_before(self, outer: LinearOperator) -> LinearOperator | None:
        """The outer operator may be made one with the first of these."""
        merged = _merged(outer, self.outer)
        return None if merged is None else merged @ self.inner


class Scaled(LinearOperator):
    """``factor * operator``: what whitening by the standard deviation of the noise needs.

    A scalar keeps any decomposition. An array keeps it where any two rows of the operator are
    orthogonal or parallel. A factor may be zero, as of an entry that is not observed.

    Args:
        operator: applied first.
        factor: a scalar, or of the operator's ``out_shape``.

    Raises:
        InputError: a factor of another shape, or complex.
    """

    operator: LinearOperator
    factor: Float[Array, "..."]

    def __init__(self, operator: LinearOperator, factor: ArrayLike | Sequence[Any]):
        factor = as_floats(factor)
        if jnp.iscomplexobj(factor):
            raise InputError("Scaled: the factor is complex; operators take real numbers")
        if factor.shape not in ((), operator.out_shape):
            raise InputError(
                f"Scaled: the factor has shape {factor.shape}; it must be a scalar or of the"
                f" observation's shape {operator.out_shape}"
            )
        if isinstance(operator, Scaled):
            operator, factor = operator.operator, operator.factor * factor
        set_fields(self, operator=operator, factor=factor)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """That of the operator."""
        return self.operator.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """That of the operator."""
        return self.operator.out_shape

    @property
    def structure(self) -> Structure:
        """Rows stay orthogonal."""
        return Structure(min(self.operator.structure.rows, Rows.ORTHOGONAL))

    @property
    def structured(self) -> bool:
        """See the class."""
        return self.structure.rows > Rows.ANY or (not self.factor.ndim and self.operator.structured)

    @property
    def picks_entries(self) -> bool:
        """That of the operator."""
        return self.operator.picks_entries

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*observation"]:
        """The observation times the factor."""
        return self.factor * self.operator.apply(x)

    def svd(self) -> SVD:
        """From that of the operator.

        Raises:
            InputError: no structure is known, and the matrix is too large.
        """
        return self.operator.scaled_svd(self.factor)

    def scaled_svd(self, factor: Float[Array, "..."]) -> SVD:
        """With both factors."""
        return self.operator.scaled_svd(self.factor * factor)

    def compose_after(self, inner: LinearOperator) -> LinearOperator | None:
        """The factor stays outside."""
        return Scaled(self.operator @ inner, self.factor)

    def compose_before(self, outer: LinearOperator) -> LinearOperator | None:
        """A scalar goes outside; other factors where the outer operator selects entries."""
        if not self.factor.ndim:
            return Scaled(outer @ self.operator, self.factor)
        if outer.structure.selects:
            return Scaled(outer @ self.operator, outer.apply(self.factor))
        return None
