"""Progress of a run on the terminal: a bar with the time left, or a line every tenth.

`ProgressBar` is the callable that ``particle_filter(progress=...)`` wants; training uses it too. It
is entered as a context around the run, and may be entered again for the next one: keep one object
for as long as the compiled filter is reused, since a jitted function that has another callable
compiles again.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import jax

_NOTES = {"ess": "ESS {:.0f}", "loss": "loss {:.4f}"}


class ProgressBar:
    """A progress bar for one run after another.

    On a terminal a bar with elapsed and remaining time (rich, imported on entry); elsewhere a line
    at about every tenth of the run, so that a log stays short. Calls outside the context, late or
    out of order are harmless.

    Args:
        num_steps: steps of a run.
        description: what the bar says is being done.
        file: where to print; None is standard error.
    """

    def __init__(self, num_steps: int, description: str = "Sampling", file: Any = None):
        """See the class."""
        self.num_steps = num_steps
        self.description = description
        self.file = file
        self._bar: Any = None
        self._task: Any = None
        self._start: float | None = None
        self._latest = -1
        self._printed = -1

    def __enter__(self) -> ProgressBar:
        """Starts the bar."""
        self._latest, self._printed = -1, -1
        self._start = time.perf_counter()
        file = sys.stderr if self.file is None else self.file
        if not file.isatty():
            return self
        from rich import progress as rich_progress
        from rich.console import Console

        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("left"),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[note]}"),
            console=Console(file=file),
        )
        self._task = self._bar.add_task(f"{self.description} (compiling)", total=None, note="")
        self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        """Waits for the last callbacks and takes the bar down."""
        if exception[0] is None:
            jax.effects_barrier()
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._task, self._start = None, None, None

    def __call__(self, t: int, num_steps: int, info: dict[str, Any]) -> None:
        """Shows that step ``t`` of ``num_steps`` is done.

        Args:
            t: the step, 0 to ``num_steps``.
            num_steps: steps of the run.
            info: numbers; those named in ``_NOTES`` are shown beside the bar.
        """
        if self._start is None or t <= self._latest:
            return
        self._latest = t
        note = ", ".join(form.format(float(info[n])) for n, form in _NOTES.items() if n in info)
        if self._bar is not None:
            self._bar.update(
                self._task, description=self.description, completed=t, total=num_steps, note=note
            )
        else:
            self._print_line(t, num_steps, note)

    def _print_line(self, t: int, num_steps: int, note: str) -> None:
        """A line when another tenth is done."""
        tenth = 10 * t // max(num_steps, 1)
        if tenth <= self._printed and t < num_steps:
            return
        self._printed = tenth
        elapsed = time.perf_counter() - (self._start or 0.0)
        left = f", {elapsed * (num_steps - t) / t:.1f} s left" if t else ""
        file = sys.stderr if self.file is None else self.file
        line = f"{self.description}: {t}/{num_steps} steps, {elapsed:.1f} s{left}, {note}"
        print(line.rstrip(", "), file=file, flush=True)
