"""The table of a posterior: numbers for every entry, and what the terminal shows of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from smcdiff.errors import InputError
from smcdiff.results import _weighted as averages
from smcdiff.results._evidence import evidence_in_words, told_by_chains_alone
from smcdiff.results._particles import WeightedParticles

MOST_ROWS = 16
"""Sites with more entries than this are shown by a few of them."""

_FEW_FOUNDERS = 5
"""Fewer effective founders leave `averages.precision` without a meaning."""


def _levels(prob: float | int) -> tuple[float, float]:
    if isinstance(prob, bool) or not isinstance(prob, (int, float)) or not 0.0 < prob < 1.0:
        raise InputError(f"summary: prob is {prob!r}; it must lie between 0 and 1, 0.9 for example")
    return (1.0 - prob) / 2, (1.0 + prob) / 2


def _percent(level: float) -> str:
    return f"{100 * level:.1f}%"


def summarise(
    particles: WeightedParticles, prob: float | int = 0.9
) -> dict[str, dict[str, np.ndarray]]:
    """Mean, standard deviation and quantiles of each site, and what they rest on.

    Args:
        particles: the record of a run.
        prob: posterior probability between the two quantiles, which cut off equal parts.

    Returns:
        site -> ``"mean"``, ``"std"``, the quantiles (``"5.0%"`` and ``"95.0%"`` if prob is 0.9),
        ``"mcse_mean"``, ``"mcse_std"`` and ``"n_eff"``, each of the site's event shape. See
        `smcdiff.Posterior.summary`.

    Raises:
        InputError: prob is not between 0 and 1.
    """
    return {site: _numbers(particles, particles.pooled(site), prob) for site in particles.samples}


def _numbers(
    particles: WeightedParticles, values: np.ndarray, prob: float | int
) -> dict[str, np.ndarray]:
    """The numbers of entries, (C N, *entries)."""
    weights, founders = particles.pooled_weights.ravel(), particles.pooled_founders
    low, high = levels = _levels(prob)
    below, above = averages.quantiles(values, weights, levels)
    told = averages.precision(values, weights, founders)
    if averages.effective_founders(weights, founders) < _FEW_FOUNDERS:
        told = averages.Precision(*(np.full_like(number, np.nan) for number in told))
    return {
        "mean": averages.mean(values, weights),
        "std": averages.std(values, weights),
        _percent(low): below,
        _percent(high): above,
        "mcse_mean": told.mean_error,
        "mcse_std": told.std_error,
        "n_eff": told.draws,
    }


def _rows(particles: WeightedParticles, site: str, prob: float | int) -> list[tuple[str, dict]]:
    """Rows of one site: each entry, or of many entries the widest, the middle and the narrowest."""
    values = particles.pooled(site)
    shape, flat = values.shape[1:], values.reshape(len(values), -1)
    if flat.shape[1] == 0:
        return []
    entries, notes = np.arange(flat.shape[1]), [""] * flat.shape[1]
    if len(entries) > MOST_ROWS:
        by_width = np.argsort(averages.std(flat, particles.pooled_weights.ravel()), kind="stable")
        entries = by_width[[-1, len(entries) // 2, 0]]
        notes = [" widest", " middle", " narrowest"]
    numbers = _numbers(particles, flat[:, entries], prob)
    rows = []
    for position, (entry, note) in enumerate(zip(entries, notes, strict=True)):
        index = ", ".join(str(i) for i in np.unravel_index(entry, shape))
        name = f"{site}[{index}]{note}" if shape else site
        rows.append((name, {key: value[position] for key, value in numbers.items()}))
    return rows


def rests_on(particles: WeightedParticles) -> str:
    """What the numbers of a run rest on, in lines of less than 80 characters."""
    chains, count = particles.log_weights.shape
    weights = particles.pooled_weights.ravel()
    text = (
        f"{averages.effective_number(weights):.1f} effective particles of {chains} x {count}, of"
        f" {averages.effective_founders(weights, particles.pooled_founders):.1f} effective founders"
    )
    if not particles.weighted:
        return f"{text}\nweights were off: these are not draws from the posterior"
    text = f"{text}\nlog evidence {evidence_in_words(particles)}"
    untold = told_by_chains_alone(particles)
    return f"{text}\n{untold}" if untold else text


def print_table(particles: WeightedParticles, prob: float | int = 0.9) -> None:
    """Prints the table; see `smcdiff.Posterior.print_summary`.

    Args:
        particles: the record of a run.
        prob: posterior probability between the two quantiles.

    Raises:
        InputError: prob is not between 0 and 1.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = ("mean", "std", *map(_percent, _levels(prob)), "mcse_mean", "mcse_std", "n_eff")
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("site", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for site in particles.samples:
        for name, numbers in _rows(particles, site, prob):
            # As text: rich reads square brackets as its own marks.
            table.add_row(Text(name), *(_cell(numbers[column], column) for column in columns))
    console = Console()
    console.print(table)
    for site in particles.samples:
        entries = math.prod(particles.samples[site].shape[2:])
        if entries > MOST_ROWS:
            note = f"{site}: the widest, the middle and the narrowest of {entries} entries"
            console.print(Text(note))
    console.print(rests_on(particles), highlight=False)


def _cell(value: Any, column: str) -> str:
    value = float(value)
    if np.isnan(value):
        return "-"
    if column == "n_eff":
        return f"{value:.1f}"
    return f"{value:.2g}" if column.startswith("mcse") else f"{value:.4g}"
