"""The table of a calibration, for the terminal."""

from __future__ import annotations

from io import StringIO

import numpy as np

from smcdiff.calibration._record import CalibrationRecord

_PROB = 0.9
"""Probability of the regions whose coverage is shown."""
_MOST_ROWS = 24
"""More quantities than these are shown by those of the least p-values."""
_FEW = 0.02
"""Share of posteriors with fewer effective particles than draws from which on it is said."""
_WIDTH = 80


def table(record: CalibrationRecord) -> str:
    """The quantities with their p-values and coverage, and the verdict."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = record.p_values
    shown = sorted(sorted(found, key=found.__getitem__)[:_MOST_ROWS], key=list(found).index)
    rows = Table(box=SIMPLE)
    rows.add_column("quantity", overflow="fold")
    for column in ("p-value", "mean rank / L", f"{100 * _PROB:.0f} % covers"):
        rows.add_column(column, justify="right", no_wrap=True)
    for name in shown:
        ranks = record.ranks_of(name)
        mean = f"{np.mean(ranks) / record.num_draws:.3f}" if len(ranks) else "-"
        covers = f"{100 * record.coverage(name).at(_PROB):.1f} %"
        # As text: rich reads square brackets as its own marks.
        rows.add_row(Text(name), f"{found[name]:.3g}", mean, covers)
    file = StringIO()
    console = Console(file=file, width=_WIDTH, color_system=None)
    console.print(rows)
    if len(shown) < len(found):
        console.print(f"the {len(shown)} least p-values of {len(found)} quantities")
    for line in _verdict(record, found):
        console.print(line, highlight=False)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _verdict(record: CalibrationRecord, found: dict[str, float]) -> list[str]:
    """What the numbers rest on, and what they say together."""
    count = len(record.simulations)
    effective = float(np.median(record.effective_draws)) if count else 0.0
    lines = [
        f"{count} simulations, {record.num_draws} draws of each posterior, of"
        f" {effective:.0f} effective particles (median)"
    ]
    few = float(np.mean(record.effective_draws < record.num_draws)) if count else 0.0
    if few > _FEW:
        lines.append(
            f"{100 * few:.0f} % of the posteriors have fewer effective particles than draws: their"
            " draws repeat, and their ranks stray even where the weights are right; take more"
            " particles, or a smaller num_draws"
        )
    if record.failures:
        item, why = next(iter(record.failures.items()))
        lines.append(f"{len(record.failures)} simulations failed; number {item}: {why}")
    word = "passes" if record.passes() else "does not pass"
    lines.append(
        f"p = {record.p_value:.3g} of all together (the least of {len(found)}, times"
        f" {len(found)}): {word} at 0.01"
    )
    return lines
