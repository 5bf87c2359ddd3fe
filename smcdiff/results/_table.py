"""The table of sites that the terminal shows: of weighted particles, and of Markov chains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from smcdiff.errors import InputError

_MOST_ROWS = 16
"""Of a site: of one with more entries three are shown."""
_FORMS = {
    "n_eff": ".1f", "mcse_mean": ".2g", "mcse_std": ".2g",
    "mcse": ".2g", "ess_bulk": ".0f", "ess_tail": ".0f", "r_hat": ".3f",
}  # fmt: skip
"""Of columns whose numbers are not written with four digits."""


class Entries(NamedTuple):
    """The entries of a site, flat.

    Attributes:
        shape: of an event.
        spread: gives the standard deviation of each.
        numbers: gives the columns of some of them.
    """

    shape: tuple[int, ...]
    spread: Callable[[], Float[np.ndarray, " n"]]
    numbers: Callable[[Int[np.ndarray, " k"]], Mapping[str, Float[np.ndarray, " k"]]]

    @property
    def count(self) -> int:
        """How many there are."""
        return math.prod(self.shape)


def levels_of(prob: float | int) -> tuple[float, float]:
    """The levels of the two quantiles with that much probability between them.

    Raises:
        InputError: prob is not between 0 and 1.
    """
    if isinstance(prob, bool) or not isinstance(prob, (int, float)) or not 0.0 < prob < 1.0:
        raise InputError(f"summary: prob is {prob!r}; it must lie between 0 and 1, 0.9 for example")
    return (1.0 - prob) / 2, (1.0 + prob) / 2


def percent(level: float) -> str:
    """The name of a quantile."""
    return f"{100 * level:.1f}%"


def print_sites(sites: Mapping[str, Entries], columns: Sequence[str]) -> None:
    """Prints a row for each entry; of many the widest, the middle and the narrowest."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table, console = Table(box=SIMPLE, padding=(0, 1, 0, 0)), Console()
    table.add_column("site", overflow="fold", min_width=8)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for site, entries in sites.items():
        for name, row in _rows(site, entries):
            # As text: rich reads square brackets as its own marks.
            table.add_row(Text(name), *(_cell(row[column], column) for column in columns))
    console.print(table)
    for site, entries in sites.items():
        if entries.count > _MOST_ROWS:
            note = f"{site}: the widest, the middle and the narrowest of {entries.count} entries"
            console.print(Text(note))


def _rows(site: str, entries: Entries) -> list[tuple[str, dict[str, float]]]:
    count = entries.count
    if count == 0:
        return []
    shown, notes = np.arange(count), [""] * count
    if count > _MOST_ROWS:
        by_width = np.argsort(entries.spread(), kind="stable")
        shown = by_width[[-1, count // 2, 0]]
        notes = [" widest", " middle", " narrowest"]
    numbers = entries.numbers(shown)
    rows = []
    for place, (entry, note) in enumerate(zip(shown, notes, strict=True)):
        index = ", ".join(str(i) for i in np.unravel_index(entry, entries.shape))
        name = f"{site}[{index}]{note}" if entries.shape else site
        rows.append((name, {column: float(value[place]) for column, value in numbers.items()}))
    return rows


def _cell(value: float, column: str) -> str:
    return "-" if np.isnan(value) else format(value, _FORMS.get(column, ".4g"))
