"""What of the data the schedule's end and the twists depend on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from smcdiff.base._pixels import to_unit_range
from smcdiff.errors import InputError

_MOST_EVENTS = 2000
_MOST_VALUES = 2**26
"""Numbers that are held at once: a quarter of a gigabyte."""


class Statistics(NamedTuple):
    """Of a random sample of the data, for data are often sorted by class.

    Attributes:
        norm: root mean square norm of an event, in data units.
        variance: largest eigenvalue of the covariance, in squared data units.
    """

    norm: float
    variance: float

    @classmethod
    def of(cls, name: str, events: Num[np.ndarray, " n *event"]) -> Statistics:
        """From at most 2,000 events.

        Args:
            name: of the data, for the message.
            events: uint8 images, or floats in data units.

        Raises:
            InputError: all events are the same.
        """
        count = min(_MOST_EVENTS, max(2, _MOST_VALUES // events[0].size))
        chosen = np.random.default_rng(0).permutation(len(events))[:count]
        flat = clean_events(events[np.sort(chosen)]).reshape(len(chosen), -1)
        norm = float(np.sqrt(np.mean(np.einsum("nd,nd->n", flat, flat))))
        flat = flat - flat.mean(axis=0)
        # Both products have the same eigenvalues but zeros: the smaller one.
        product = flat @ flat.T if len(flat) < flat.shape[1] else flat.T @ flat
        variance = float(np.linalg.eigvalsh(product)[-1]) / len(flat)
        if not variance > 0.0:
            raise InputError(f"{name}: all events are the same; there is nothing to learn")
        return cls(norm, variance)


def clean_events(events: Num[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Events in data units: uint8 pixels from -1 to 1, anything else as it is."""
    return to_unit_range(events) if events.dtype == np.uint8 else events
