"""Observation of some entries of an event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Num, PRNGKeyArray

from smcdiff.base.module import set_fields, static
from smcdiff.errors import InputError
from smcdiff.operators.algebra import LinearOperator, Reshape
from smcdiff.operators.structure import Rows, Structure, as_indices, at_once, is_known


def check_distinct(name: str, indices: Int[Array | np.ndarray, " m"], size: int) -> None:
    """Raises ``InputError`` unless the indices are entries of an event, none of them twice."""
    listed = np.asarray(indices)
    if listed.size and not 0 <= listed.min() <= listed.max() < size:
        raise InputError(f"{name}: indices must lie in 0 to {size - 1}, the entries of an event")
    counts = np.bincount(listed, minlength=size)
    if np.any(counts > 1):
        raise InputError(
            f"{name}: entry {np.argmax(counts > 1)} is listed twice; list it once, or put two"
            " operators together by operators.Stacked"
        )


class Mask(LinearOperator):
    """The observed entries, as a vector; made by `Mask.of` (row-major order) or `Mask.random`.

    Args:
        indices: (d_y,) flat indices of the observed entries, in any order, none of them twice.
        event: shape of an event.

    Raises:
        InputError: indices that are no entries of an event, or repeated ones; traced indices cannot
            be checked.
    """

    indices: Int[Array, " m"]
    event: tuple[int, ...] = static()

    def __init__(self, indices: ArrayLike | Sequence[int], event: tuple[int, ...]):
        set_fields(self, indices=as_indices(indices), event=tuple(event))
        if self.indices.ndim != 1:
            raise InputError(
                f"Mask: the indices have shape {self.indices.shape}; give (d_y,), or"
                " a mask of True and False to Mask.of"
            )
        if is_known(self.indices):
            check_distinct("Mask", self.indices, math.prod(self.event))

    @classmethod
    def of(cls, observed: ArrayLike | Sequence[Any]) -> Mask:
        """From an array of truth values.

        Args:
            observed: of the event's shape; True (or 1) where the entry is observed.

        Raises:
            InputError: nothing is observed, or values other than true and false.
        """
        observed = np.asarray(observed)
        if observed.dtype != bool:
            if not np.all(np.isin(observed, (0, 1))):
                raise InputError("Mask: entries must be 0 or 1 (1 is observed), without NaN")
            observed = observed.astype(bool)
        if not observed.any():
            raise InputError("Mask: every entry is masked; leave at least one observed (1)")
        return cls(as_indices(np.flatnonzero(observed)), observed.shape)

    @classmethod
    def channels(cls, shape: tuple[int, ...], observed: ArrayLike | Sequence[Any]) -> Mask:
        """Whole channels.

        Args:
            shape: (..., c) of an event.
            observed: (c,), True (or 1) where the channel is observed.

        Raises:
            InputError: as `Mask.of`, or another number of channels.
        """
        observed = np.asarray(observed)
        if observed.shape != tuple(shape[-1:]):
            raise InputError(
                f"Mask: {observed.shape[0] if observed.ndim else 'no'} channels given for events of"
                f" shape {tuple(shape)}"
            )
        return cls.of(np.broadcast_to(observed, shape))

    @classmethod
    def random(cls, key: PRNGKeyArray, shape: tuple[int, ...], fraction: float) -> Mask:
        """Pixels at random, all channels of a pixel together in (h, w, c).

        Args:
            key: random key.
            shape: of an event.
            fraction: of the pixels that are observed, in (0, 1]; at least one is.

        Raises:
            InputError: a fraction out of range, or a traced key.
        """
        if not is_known(key):
            raise InputError(
                "Mask.random: the key is traced, and which entries are observed must be known; make"
                " the mask outside the model and outside jax.jit"
            )
        if not 0.0 < fraction <= 1.0:
            raise InputError(f"Mask: fraction is {fraction}; it must lie in (0, 1]")
        pixels = tuple(shape[:2]) if len(shape) == 3 else tuple(shape)
        size = math.prod(pixels)
        with at_once():
            chosen = jax.random.permutation(key, size)[: max(1, round(fraction * size))]
        observed = np.zeros(size, bool)
        observed[np.asarray(chosen)] = True
        observed = observed.reshape(pixels + (1,) * (len(shape) - len(pixels)))
        return cls.of(np.broadcast_to(observed, shape))

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return self.event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(number of observed entries,)."""
        return self.indices.shape

    @property
    def structure(self) -> Structure:
        """Rows of the identity, and perhaps all of them."""
        every = self.indices.shape[0] == math.prod(self.event)
        return Structure(Rows.ORTHONORMAL, isometry=every, selects=True)

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, " m"]:
        """The observed entries."""
        return jnp.ravel(x)[self.indices]

    def compose_after(self, inner: LinearOperator) -> LinearOperator | None:
        """After a mask or a change of shape this is another mask."""
        if isinstance(inner, Mask):
            if is_known(self.indices, inner.indices):
                chosen = np.asarray(inner.indices)[np.asarray(self.indices)]
                return Mask(chosen, inner.event)
            return Mask(inner.indices[self.indices], inner.event)
        return Mask(self.indices, inner.event) if isinstance(inner, Reshape) else None
