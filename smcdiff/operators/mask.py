"""Observation of some entries of an event."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.operators.base import SVD, LinearOperator
from smcdiff.operators.reshape import Reshape


class Mask(LinearOperator):
    """The observed entries, as a vector; made by `Mask.of` (row-major order) or `Mask.random`.

    Attributes:
        indices: (d_y,) flat indices of the observed entries.
        event: shape of an event.
    """

    indices: Int[Array, " m"]
    event: tuple[int, ...] = static()

    @classmethod
    def of(cls, observed) -> Mask:
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
        return cls(jnp.asarray(np.flatnonzero(observed), jnp.int32), observed.shape)

    @classmethod
    def channels(cls, shape: tuple[int, ...], observed) -> Mask:
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
            InputError: a fraction out of range.
        """
        if not 0.0 < fraction <= 1.0:
            raise InputError(f"Mask: fraction is {fraction}; it must lie in (0, 1]")
        pixels = tuple(shape[:2]) if len(shape) == 3 else tuple(shape)
        size = math.prod(pixels)
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

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, " m"]:
        """The observed entries."""
        return jnp.ravel(x)[self.indices]

    def svd(self) -> SVD:
        """All singular values are one."""
        return SVD.of_orthonormal(Reshape(self.out_shape, self.out_shape), self)
