"""Ctrl-C while compiled code runs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_GRACE = 2.0
"""Seconds for Python code to end its own way after Ctrl-C."""

T = TypeVar("T")


def interruptible(work: Callable[[], T]) -> T:
    """What ``work()`` returns; Ctrl-C ends it at once.

    Python looks for signals between two instructions of its main thread, and a compiled run of
    minutes is one instruction. So the work has a thread of its own and the main thread listens.

    Raises:
        KeyboardInterrupt: Ctrl-C. The thread has ended, unless it is inside compiled code: then
            only the end of the process ends it, see `smcdiff.cli.app.main`.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
        return future.result()
    except KeyboardInterrupt:
        # Raised there too, so that training between two steps, say, closes its files.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
        )
        thread.join(_GRACE)
        raise
