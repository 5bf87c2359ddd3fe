"""Block averages: the observation of super-resolution."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.errors import InputError
from smcdiff.operators.base import LinearOperator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BlockDownsample(LinearOperator):
    """Means over ``factor`` x ``factor`` blocks of pixels.

    Attributes:
        event: (h, w) or (h, w, c); h and w divide by ``factor``.
        factor: side of a block, in pixels.

    Raises:
        InputError: a shape of other rank, or that does not divide.
    """

    event: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    factor: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        if len(self.event) not in (2, 3) or self.factor < 1:
            raise InputError("BlockDownsample: give (h, w) or (h, w, c) and a factor of at least 1")
        if self.event[0] % self.factor or self.event[1] % self.factor:
            raise InputError(f"BlockDownsample: {self.event} does not divide by {self.factor}")

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The image's shape."""
        return self.event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The small image's shape."""
        height, width, *channels = self.event
        return (height // self.factor, width // self.factor, *channels)

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, "*small"]:
        """The small image."""
        height, width, *channels = self.out_shape
        blocks = x.reshape(height, self.factor, width, self.factor, *channels)
        return jnp.mean(blocks, axis=(1, 3))
