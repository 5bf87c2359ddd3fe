"""Mixing of colour channels: the observation of colourisation."""

from __future__ import annotations

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from smcdiff.errors import InputError
from smcdiff.operators.kronecker import Kronecker
from smcdiff.operators.structure import as_floats


class ColourMix(Kronecker):
    """Each pixel's channels times a matrix; ``ColourMix.grey(shape)`` averages them.

    Args:
        weights: (c', c).
        event: (..., c).

    Raises:
        InputError: weights that do not fit the event's last axis.
    """

    def __init__(self, weights: ArrayLike, event: tuple[int, ...]):
        matrix = as_floats(weights)
        if matrix.ndim != 2 or matrix.shape[1:] != tuple(event[-1:]):
            raise InputError(
                f"ColourMix: weights of {matrix.shape} do not act on the channels of {tuple(event)}"
            )
        super().__init__((*(None for _ in event[:-1]), matrix), event)

    @property
    def weights(self) -> Float[Array, "b c"]:
        """(c', c)."""
        return self._matrix(-1)

    @classmethod
    def grey(cls, shape: tuple[int, ...]) -> ColourMix:
        """The mean of the channels.

        Raises:
            InputError: an image of one channel, or without a channel axis.
        """
        if len(shape) != 3 or shape[-1] == 1:
            raise InputError(f"ColourMix: {tuple(shape)} has no colours to mix; give (h, w, c)")
        return cls(np.full((1, shape[-1]), 1.0 / shape[-1]), shape)
