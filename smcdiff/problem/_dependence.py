"""What depends on what in a function that JAX can trace."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.interpreters import partial_eval
from jaxtyping import Array


def depends_on_first(function: Callable, *args: Array) -> bool:
    """Whether the output depends on the first argument, after dead code is removed."""
    jaxpr = jax.make_jaxpr(function)(*args)
    _, used = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    return used[0]
