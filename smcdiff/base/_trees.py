"""Comparing pytrees."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def are_equal(first: Any, second: Any) -> bool:
    """Whether two pytrees have the same structure and values; traced leaves only as one object."""
    if first is second:
        return True
    if jax.tree.structure(first) != jax.tree.structure(second):
        return False
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(
        a is b or not (isinstance(a, Tracer) or isinstance(b, Tracer)) and np.array_equal(a, b)
        for a, b in pairs
    )
