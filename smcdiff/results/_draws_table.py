"""The table of Markov chains: numbers for every entry, and what the terminal shows of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from smcdiff.results import _arviz as arviz
from smcdiff.results._summary import MOST_ROWS, _levels, _percent

_FORMS = {"ess_bulk": ".0f", "ess_tail": ".0f", "r_hat": ".3f", "mcse": ".2g"}


def numbers(values: np.ndarray, prob: float | int) -> dict[str, np.ndarray]:
    """The numbers of entries, (C, S, *entries); see `smcdiff.Draws.summary`."""
    low, high = levels = _levels(prob)
    pooled = values.reshape(-1, *values.shape[2:]).astype(np.float64)
    below, above = np.quantile(pooled, levels, axis=0)
    told = arviz.convergence(values)
    mean, std = pooled.mean(axis=0), pooled.std(axis=0)
    found = {"mean": mean, "std": std, _percent(low): below, _percent(high): above, **told}
    return {name: np.asarray(value) for name, value in found.items()}


def print_table(samples: Mapping[str, np.ndarray], prob: float | int) -> None:
    """Prints the table; see `smcdiff.Draws.print_summary`."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table, console = Table(box=SIMPLE, padding=(0, 1, 0, 0)), Console()
    for site, values in samples.items():
        for name, row in _rows(site, values, prob):
            if not table.columns:
                table.add_column("site", overflow="fold", min_width=8)
                for column in row:
                    table.add_column(column, justify="right", no_wrap=True)
            # As text: rich reads square brackets as its own marks.
            table.add_row(Text(name), *(_cell(value, column) for column, value in row.items()))
    console.print(table)
    for site, values in samples.items():
        count = int(np.prod(values.shape[2:]))
        if count > MOST_ROWS:
            note = f"{site}: the widest, the middle and the narrowest of {count} entries"
            console.print(Text(note))


def _rows(site: str, values: np.ndarray, prob: float | int) -> list[tuple[str, dict]]:
    """Each entry of a site, or of many entries the widest, the middle and the narrowest."""
    shape, flat = values.shape[2:], values.reshape(*values.shape[:2], -1)
    if flat.shape[-1] == 0:
        return []
    entries, notes = np.arange(flat.shape[-1]), [""] * flat.shape[-1]
    if len(entries) > MOST_ROWS:
        by_width = np.argsort(flat.std(axis=(0, 1)), kind="stable")
        entries = by_width[[-1, len(entries) // 2, 0]]
        notes = [" widest", " middle", " narrowest"]
    found = numbers(flat[..., entries], prob)
    rows = []
    for place, (entry, note) in enumerate(zip(entries, notes, strict=True)):
        index = ", ".join(str(i) for i in np.unravel_index(entry, shape))
        name = f"{site}[{index}]{note}" if shape else site
        rows.append((name, {key: value[place] for key, value in found.items()}))
    return rows


def _cell(value: float, column: str) -> str:
    if np.isnan(value):
        return "-"
    return format(value, _FORMS.get(column, ".4g"))
