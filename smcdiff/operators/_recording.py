"""Which operators a function calls, and on which arrays.

A NumPyro model shows its observed sites, and not the operators that made them. The reader of models
traces the model inside `record_calls`, finds among the calls the one whose output is the mean of a
site (or leads to it), and checks it with numbers before it relies on that operator's structure::

    with record_calls() as calls:
        trace = numpyro.handlers.trace(model).get_trace()
    calls[0].operator.svd()

Arrays may be tracers, of which nothing but identity and shape is of use after the trace. A function
under ``jax.jit`` runs its Python once: calls inside are recorded the first time only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Num


class Call(NamedTuple):
    """One call of an operator.

    Attributes:
        operator: the `LinearOperator` that was called.
        x: its input, as it was given.
        y: its output.
    """

    operator: Callable[[Array], Array]
    x: Num[Array | np.ndarray, "..."]
    y: Num[Array, "..."]


# A new thread begins with an empty context, so no thread sees the calls of another one.
_lists: ContextVar[tuple[list[Call], ...]] = ContextVar("lists of calls", default=())


@contextmanager
def record_calls() -> Iterator[list[Call]]:
    """Yields a list to which every call of a `LinearOperator` in this thread is appended.

    A composition is one call, of itself and not of its parts. Of nested recordings each sees the
    calls.
    """
    calls: list[Call] = []
    token = _lists.set((*_lists.get(), calls))
    try:
        yield calls
    finally:
        _lists.reset(token)


def record(
    operator: Callable[[Array], Array],
    x: Num[Array | np.ndarray, "..."],
    y: Num[Array, "..."],
) -> None:
    """Appends a call to the lists that are open in this thread."""
    for calls in _lists.get():
        calls.append(Call(operator, x, y))
