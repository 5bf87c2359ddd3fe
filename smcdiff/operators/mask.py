"""Observation of some entries of an event."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smcdiff.errors import InputError
from smcdiff.operators.base import LinearOperator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask(LinearOperator):
    """The observed entries, as a vector in row-major order; made by `Mask.of`.

    Attributes:
        indices: (d_y,) flat indices of the observed entries.
        event: shape of an event.
    """

    indices: Int[Array, " m"]
    event: tuple[int, ...] = dataclasses.field(metadata={"static": True})

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
