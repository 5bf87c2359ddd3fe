"""Checks of a filter's settings, with messages that name the setting and the remedy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from smcdiff.errors import InputError

_MOST = 2**31 - 1
"""Largest count: indices have 32 bits."""


def count(name: str, value: Any, least: int = 1) -> int:
    """A whole number, at least ``least``.

    Raises:
        InputError: anything else, True and False among it.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value > _MOST:
        raise InputError(
            f"particle_filter: {name} is {value!r}; it must be a whole number, at most {_MOST}"
        )
    if value < least:
        raise InputError(f"particle_filter: {name} is {value}; it must be at least {least}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        InputError: anything else, since a word like "no" would count as True.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"particle_filter: {name} is {value!r}; it must be True or False")
    return bool(value)


def threshold(value: Any) -> Any:
    """An ESS threshold: a number as a Python float, several as an array of floats.

    Raises:
        InputError: neither of them, or values outside [0, 1] where they can be read.
    """
    if isinstance(value, Tracer):
        return value
    is_array = isinstance(value, (np.ndarray, jax.Array))
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (is_array or is_number) or np.ndim(value) > 1:
        raise InputError(
            f"particle_filter: ess_threshold is {value!r}; give a fraction in [0, 1], or an array"
            " of them, one for each step"
        )
    if not np.all((np.asarray(value) >= 0.0) & (np.asarray(value) <= 1.0)):
        raise InputError(f"particle_filter: ess_threshold is {value}; it must lie in [0, 1]")
    return jnp.asarray(value, float) if np.ndim(value) else float(value)


def check_length(threshold: Any, num_steps: int) -> None:
    """Raises ``InputError`` unless an array of thresholds has one for each weighting."""
    if jnp.ndim(threshold) > 0 and jnp.shape(threshold) != (num_steps + 1,):
        raise InputError(
            f"particle_filter: ess_threshold has shape {jnp.shape(threshold)}; give one number, or"
            f" one for each of the {num_steps + 1} weightings"
        )
