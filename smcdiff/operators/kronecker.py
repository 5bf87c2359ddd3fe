"""A matrix on each axis of an event: what blurs, block means and mixes of colours are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from smcdiff.base.module import set_fields, static
from smcdiff.errors import InputError
from smcdiff.operators.algebra import SVD, LinearOperator, Reshape
from smcdiff.operators.mask import Mask
from smcdiff.operators.structure import EXACT, Rows, Structure, as_floats, at_once, is_known

Factor = Float[Array, "_ _"] | None
"""The matrix of one axis; None leaves the axis alone and costs nothing."""


class Axis(NamedTuple):
    """The matrix of one axis, and whether its rows are known to be orthogonal, none to be zero."""

    factor: Factor
    orthogonal: bool


def apply_factors(factors: tuple[Factor, ...], x: Num[Array, "..."]) -> Num[Array, "..."]:
    """One matrix after the other, the one that leaves the fewest entries first."""
    axes = [(axis, factor) for axis, factor in enumerate(factors) if factor is not None]
    for axis, factor in sorted(axes, key=lambda pair: pair[1].shape[0] / pair[1].shape[1]):
        x = jnp.moveaxis(jnp.tensordot(factor, x, (1, axis), precision=EXACT), 0, axis)
    return x


class Kronecker(LinearOperator):
    """A matrix on each axis of an event, the Kronecker product of the matrices on flat events.

    The decomposition takes one of each matrix. ``outer @ inner`` of two is again one, and so is a
    `Mask` of whole rows, columns and channels (any product of sets of them) after one.

    Args:
        factors: for each axis of length n a matrix (n', n), or None where the axis is left alone.
        event: shape of an event.
        orthogonal: for each axis whether the matrix has orthogonal rows, none of them zero; None:
            looked up in the matrices, where they are not traced.

    Raises:
        InputError: matrices that do not fit the event.
    """

    factors: tuple[Factor, ...]
    event: tuple[int, ...] = static()
    orthogonal: tuple[bool, ...] = static()

    def __init__(
        self,
        factors: tuple[Factor | np.ndarray, ...],
        event: tuple[int, ...],
        orthogonal: tuple[bool, ...] | None = None,
    ):
        matrices = tuple(None if factor is None else as_floats(factor) for factor in factors)
        shapes = [None if matrix is None else matrix.shape for matrix in matrices]
        fits = len(shapes) == len(event) and all(
            shape is None or (len(shape) == 2 and shape[1] == size)
            for shape, size in zip(shapes, event, strict=True)
        )
        if not fits:
            raise InputError(
                f"{type(self).__name__}: matrices of {shapes} do not act on events of"
                f" {tuple(event)}"
            )
        if orthogonal is None:
            orthogonal = tuple(_has_orthogonal_rows(matrix) for matrix in matrices)
        set_fields(self, factors=matrices, event=tuple(event), orthogonal=orthogonal)

    @classmethod
    def _of_axes(cls, axes: Iterable[Axis], event: tuple[int, ...]) -> Kronecker:
        factors, orthogonal = zip(*axes, strict=True)
        return Kronecker(factors, event, orthogonal)

    @property
    def _axes(self) -> list[Axis]:
        return [Axis(*pair) for pair in zip(self.factors, self.orthogonal, strict=True)]

    def _matrix(self, axis: int) -> Float[Array, "a b"]:
        """That of an axis which is not left alone."""
        factor = self.factors[axis]
        assert factor is not None
        return factor

    @property
    def _is_identity(self) -> bool:
        return all(factor is None for factor in self.factors)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return self.event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The numbers of rows of the matrices."""
        pairs = zip(self.factors, self.event, strict=True)
        return tuple(size if factor is None else factor.shape[0] for factor, size in pairs)

    @property
    def structure(self) -> Structure:
        """The rows are orthogonal where those of every matrix are."""
        if self._is_identity:
            return Structure(Rows.ORTHONORMAL, isometry=True, selects=True)
        return Structure(Rows.ORTHOGONAL if all(self.orthogonal) else Rows.ANY)

    @property
    def structured(self) -> bool:
        """Always."""
        return True

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*observation"]:
        """All matrices applied."""
        return apply_factors(self.factors, x)

    def svd(self) -> SVD:
        """From the decompositions of the matrices."""
        lefts, values, rights = zip(*map(_decompose, self._axes), strict=True)
        right = Kronecker(rights, self.event, (True,) * len(rights))
        inner, flat = right.out_shape, (math.prod(right.out_shape),)
        left = Reshape(flat, inner)
        if any(factor is not None for factor in lefts):
            left = Kronecker(lefts, inner, tuple(factor is None for factor in lefts)) @ left
        table = jnp.ones(inner)
        for axis, along in enumerate(values):
            if along is not None:
                table *= along.reshape([-1 if other == axis else 1 for other in range(table.ndim)])
        return SVD(left, table.ravel(), Reshape(inner, flat) @ right)

    def compose_after(self, inner: LinearOperator) -> LinearOperator | None:
        """Two of these are one; the matrices are multiplied."""
        if self._is_identity:
            return inner
        if not isinstance(inner, Kronecker):
            return None
        return self._of_axes(map(_product, self._axes, inner._axes), inner.event)

    def compose_before(self, outer: LinearOperator) -> LinearOperator | None:
        """A mask of whole rows, columns and channels takes rows of the matrices."""
        if self._is_identity:
            return outer
        sets = _index_sets(outer) if isinstance(outer, Mask) else None
        if sets is None:
            return None
        chosen = self._of_axes(map(_rows, self._axes, sets, self.out_shape), self.event)
        return Reshape(chosen.out_shape, outer.out_shape) @ chosen


def _has_orthogonal_rows(matrix: Factor) -> bool:
    """Whether no row is zero and any two are orthogonal to single precision; False if traced."""
    if matrix is None:
        return True
    if not is_known(matrix) or matrix.shape[0] > matrix.shape[1]:
        return False
    rows = np.asarray(matrix, float)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(norms > 0):
        return False
    rows = rows / norms
    if np.any(np.abs(rows[1:] @ rows[0]) > 1e-6):  # the rest of the products may be long work
        return False
    return bool(np.all(np.abs(rows @ rows.T - np.eye(len(rows))) < 1e-6))


def _decompose(axis: Axis) -> tuple[Factor, Float[Array, " r"] | None, Factor]:
    """Left vectors, values and right vectors of a matrix; None is the identity, or ones."""
    factor, orthogonal = axis
    if factor is None:
        return None, None, None
    if not orthogonal:
        left, values, right = jnp.linalg.svd(factor, full_matrices=False)
        return left, values, right
    norms = jnp.linalg.norm(factor, axis=1)
    return None, norms, factor / norms[:, None]


def _product(outer: Axis, inner: Axis) -> Axis:
    """The matrices of an axis multiplied."""
    if outer.factor is None:
        return inner
    if inner.factor is None:
        return outer
    with at_once(outer.factor, inner.factor):
        matrix = jnp.matmul(outer.factor, inner.factor, precision=EXACT)
    return Axis(matrix, _has_orthogonal_rows(matrix))


def _rows(axis: Axis, chosen: np.ndarray, size: int) -> Axis:
    """Some rows of the matrix of an axis, which has ``size`` rows."""
    if np.array_equal(chosen, np.arange(size)):
        return axis
    if axis.factor is None:
        return Axis(as_floats(np.eye(size)[chosen]), True)
    matrix = (
        as_floats(np.asarray(axis.factor)[chosen]) if is_known(axis.factor) else axis.factor[chosen]
    )
    return Axis(matrix, axis.orthogonal or _has_orthogonal_rows(matrix))


def _index_sets(mask: Mask) -> list[np.ndarray] | None:
    """For each axis the indices that a mask observes, if it observes each combination of them."""
    if not is_known(mask.indices):
        return None
    indices = np.asarray(mask.indices)
    sets = []
    for along in np.unravel_index(indices, mask.event):
        values, first = np.unique(along, return_index=True)
        sets.append(values[np.argsort(first)])
    if math.prod(len(chosen) for chosen in sets) != len(indices):
        return None
    products = np.ravel_multi_index(np.ix_(*sets), mask.event).ravel()
    return sets if np.array_equal(products, indices) else None
