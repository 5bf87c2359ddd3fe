"""Progress of a run on the terminal: a bar with the time left, or a line every tenth.

A `ProgressBar` belongs to one run. It is a context around it, and the callable that the run calls
on the host between two pieces of its work: ``bar(t, num_steps, info)``. Any other callable of these
arguments may stand in its place; one that raises ends the run there, as `progress_of` says. Before,
once all is checked, `begin` is told.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called as ``progress(t, num_steps, info)`` when step ``t`` of ``num_steps`` is done."""

_NOTES = {"ess": "ESS {:.0f}", "loss": "loss {:.4f}"}
_PAUSE = 0.1
"""Seconds between two changes of the bar: reading a number of ``info`` waits for the device."""
_SILENCE = 30.0
"""Seconds without a line, at most by much, where there is no bar and a tenth takes longer."""


@contextmanager
def progress_of(
    choice: bool | Progress, description: str = "Sampling", unit: str = "steps"
) -> Iterator[Progress]:
    """What ``progress_bar=`` of a run stands for.

    Args:
        choice: True is a `ProgressBar`, False nothing; a callable is called instead, and what it
            raises ends the run.
        description: what the bar says is being done.
        unit: what is counted.

    Yields:
        The callable.
    """
    if choice is True:
        with ProgressBar(description, unit=unit) as bar:
            yield bar
    else:
        yield choice or _silent


def begin(progress: Progress) -> None:
    """Tells a bar that all is checked and the work begins; other callables have no ``begin``."""
    getattr(progress, "begin", lambda: None)()


def _silent(t: int, num_steps: int, info: dict[str, Any]) -> None:
    """Shows nothing."""


class ProgressBar:
    """The progress of one run.

    On a terminal a bar with elapsed and remaining time (rich, imported on entry), which goes again
    at the end, however the run ends; elsewhere a line when the work begins, and one at about every
    tenth of it, or every half minute if that takes longer, so that a log stays short. Calls outside
    the context, late or out of order are harmless, and so is a terminal that has gone, or a
    standard error that was closed.

    Args:
        description: what the bar says is being done.
        file: where to print; None is standard error.
        unit: what is counted.
    """

    def __init__(self, description: str = "Sampling", file: Any = None, unit: str = "steps"):
        """See the class."""
        self.unit = unit
        self.description = description
        self.file = file
        self._bar: Any = None
        self._start: float | None = None

    def __enter__(self) -> ProgressBar:
        """Starts the bar."""
        self._stream = sys.stderr if self.file is None else self.file
        self._latest, self._tenth, self._drawn = -1, -1, -_PAUSE
        self._begun, self._first = False, (0, 0.0)
        self._start = time.perf_counter()
        if self._stream is not None and self._stream.isatty():
            self._bar = _bar(self._stream)
            self._bar.add_task(f"{self.description} (compiling)", total=None, note="")
            self._bar.start()
        return self

    def begin(self) -> None:
        """Says in a log that the work begins, whose first step may wait for a compiler."""
        if self._start is not None and self._bar is None and not self._begun:
            self._begun = True
            with suppress(OSError):
                self._print(f"{self.description}: begins, and compiles first")

    def __exit__(self, *exception: Any) -> None:
        """Takes the bar down."""
        bar, self._bar, self._start = self._bar, None, None
        if bar is not None:
            with suppress(OSError):
                bar.stop()

    def __call__(self, t: int, num_steps: int, info: dict[str, Any]) -> None:
        """Shows that step ``t`` of ``num_steps`` is done.

        Args:
            t: the step, 0 to ``num_steps``.
            num_steps: steps of the run.
            info: numbers, or arrays with one per chain; those named in ``_NOTES`` are shown beside
                the bar.
        """
        start, bar = self._start, self._bar
        if start is None or self._stream is None or t <= self._latest:
            return
        elapsed = time.perf_counter() - start
        if self._latest < 0:
            self._first = t, elapsed
        self._latest = t
        with suppress(OSError):
            if bar is None:
                self._print_line(t, num_steps, elapsed, info)
            elif t == num_steps or elapsed - self._drawn >= _PAUSE:
                self._drawn = elapsed
                bar.update(
                    bar.task_ids[0], description=self.description, completed=t, total=num_steps,
                    note=_note(info),
                )  # fmt: skip

    def _print_line(self, t: int, num_steps: int, elapsed: float, info: dict[str, Any]) -> None:
        """A line when another tenth is done."""
        tenth = 10 * t // max(num_steps, 1)
        if tenth <= self._tenth and t < num_steps and elapsed - self._drawn < _SILENCE:
            return
        self._tenth, self._drawn = tenth, elapsed
        first, before = self._first  # whose time may be that of compilation
        pace = (elapsed - before) / (t - first) if t > first else None
        left = "" if pace is None else f", {pace * (num_steps - t):.1f} s left"
        done = f"{self.description}: {t}/{num_steps} {self.unit}, {elapsed:.1f} s{left}"
        self._print(f"{done}, {_note(info)}".rstrip(", "))

    def _print(self, line: str) -> None:
        if self._stream is not None:
            print(line, file=self._stream, flush=True)


def _note(info: dict[str, Any]) -> str:
    """The numbers to show; of several chains' the smallest."""
    return ", ".join(form.format(float(np.min(info[n]))) for n, form in _NOTES.items() if n in info)


def _bar(file: Any) -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
        console=Console(file=file),
        transient=True,
    )
