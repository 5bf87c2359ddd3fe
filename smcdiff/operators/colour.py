"""Mixing of colour channels: the observation of colourisation."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.operators.base import LinearOperator


class ColourMix(LinearOperator):
    """Each pixel's channels times a matrix; ``ColourMix.grey(shape)`` averages them.

    Attributes:
        weights: (c', c).
        event: (..., c).

    Raises:
        InputError: weights that do not fit the event's last axis.
    """

    weights: Float[Array, "b c"]
    event: tuple[int, ...] = static()

    def __post_init__(self):
        shape = self.weights.shape
        if len(shape) != 2 or shape[1] != self.event[-1]:
            raise InputError(
                f"ColourMix: weights of {shape} do not act on the channels of {self.event}"
            )

    @classmethod
    def grey(cls, shape: tuple[int, ...]) -> ColourMix:
        """The mean of the channels.

        Raises:
            InputError: an image of one channel, or without a channel axis.
        """
        if len(shape) != 3 or shape[-1] == 1:
            raise InputError(f"ColourMix: {tuple(shape)} has no colours to mix; give (h, w, c)")
        return cls(jnp.full((1, shape[-1]), 1.0 / shape[-1]), tuple(shape))

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return self.event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(..., c')."""
        return (*self.event[:-1], self.weights.shape[0])

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, "*out"]:
        """The mixed channels."""
        return x @ self.weights.T
