"""Ctrl-C while compiled code runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from smcdiff.base._progress import Progress, ProgressBar

_GRACE = 2.0
"""Seconds for the work to end its own way after Ctrl-C."""

T = TypeVar("T")


class _Stoppable:
    """A bar that raises ``KeyboardInterrupt`` once it is stopped."""

    def __init__(self, bar: ProgressBar):
        self._bar, self.stopped = bar, threading.Event()

    def begin(self) -> None:
        """As the bar's."""
        self._bar.begin()

    def __call__(self, t: int, num_steps: int, info: dict[str, Any]) -> None:
        """As the bar, or ends the work."""
        if self.stopped.is_set():
            raise KeyboardInterrupt
        self._bar(t, num_steps, info)


def interruptible(work: Callable[[Progress], T], bar: ProgressBar) -> T:
    """What ``work(progress)`` returns; Ctrl-C ends it where it calls ``progress`` next.

    Python looks for signals between two instructions of its main thread, and a compiled piece of a
    run is one instruction. So the work has a thread of its own and the main thread listens.

    Args:
        work: it calls ``progress(t, num_steps, info)`` between two pieces, with its files closed.
        bar: what shows the progress.

    Raises:
        KeyboardInterrupt: Ctrl-C. The thread has ended, unless it is inside compiled code: then
            only the end of the process ends it, see `smcdiff.cli.app.main`.
    """
    future: Future[T] = Future()
    progress = _Stoppable(bar)

    def run() -> None:
        try:
            future.set_result(work(progress))
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    with bar:
        try:
            thread.start()
            return future.result()
        except KeyboardInterrupt:
            progress.stopped.set()
            thread.join(_GRACE)
            raise
