"""The numbers of Markov chains for every entry, and their table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from smcdiff.results import _arviz as arviz
from smcdiff.results._table import Entries, levels_of, percent, print_sites


def numbers(values: np.ndarray, prob: float | int) -> dict[str, np.ndarray]:
    """The numbers of entries, (C, S, *entries); see `smcdiff.Draws.summary`."""
    low, high = levels = levels_of(prob)
    pooled = values.reshape(-1, *values.shape[2:]).astype(np.float64)
    below, above = np.quantile(pooled, levels, axis=0)
    told = arviz.convergence(values)
    mean, std = pooled.mean(axis=0), pooled.std(axis=0)
    found = {"mean": mean, "std": std, percent(low): below, percent(high): above, **told}
    return {name: np.asarray(value) for name, value in found.items()}


def print_table(samples: Mapping[str, np.ndarray], prob: float | int) -> None:
    """Prints the table; see `smcdiff.Draws.print_summary`."""

    def entries(values: np.ndarray) -> Entries:
        flat = values.reshape(*values.shape[:2], -1)
        return Entries(
            values.shape[2:],
            lambda: flat.std(axis=(0, 1)),
            lambda shown: numbers(flat[..., shown], prob),
        )

    quantiles = map(percent, levels_of(prob))
    columns = ("mean", "std", *quantiles, "mcse", "ess_bulk", "ess_tail", "r_hat")
    print_sites({site: entries(values) for site, values in samples.items()}, columns)
