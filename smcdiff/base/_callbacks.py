"""Exceptions of a user's host callbacks, which come out as what they are.

JAX ends a program whose ``jax.pure_callback`` raised with an error of its own, which has the
traceback in its text and the exception nowhere. It does log the exception, as an object.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from smcdiff.errors import CALLBACK_FAILED


class _Kept(logging.Handler):
    """Keeps what callbacks raised; being there, it also keeps the traceback off the terminal."""

    def __init__(self):
        super().__init__()
        self.raised: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the exception of a record."""
        if record.exc_info and record.exc_info[1] is not None:
            self.raised.append(record.exc_info[1])

    def of(self, error: Exception) -> BaseException | None:
        """The exception that ended a program; other threads may have raised others."""
        text = str(error)
        if CALLBACK_FAILED not in text:
            return None
        return next((own for own in self.raised if type(own).__name__ in text), None)


@contextmanager
def own_exceptions() -> Iterator[None]:
    """Within it, JAX's error about a host callback is replaced by what the callback raised."""
    kept, logger, own = _Kept(), logging.getLogger("jax"), None
    logger.addHandler(kept)
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # compiled calls raise either
        own = kept.of(error)
        if own is None:
            raise
    finally:
        logger.removeHandler(kept)
    if own is not None:
        own.__suppress_context__ = True  # its own traceback says all that JAX's text does
        raise own
