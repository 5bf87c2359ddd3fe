"""The table of a posterior: numbers for every entry, and what the terminal shows of them."""

from __future__ import annotations

import numpy as np

from smcdiff.results import _weighted as averages
from smcdiff.results._evidence import evidence_in_words, told_by_chains_alone
from smcdiff.results._particles import WeightedParticles
from smcdiff.results._table import Entries, levels_of, percent, print_sites

_FEW_FOUNDERS = 5
"""Fewer effective founders leave `averages.precision` without a meaning."""


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
    low, high = levels = levels_of(prob)
    below, above = averages.quantiles(values, weights, levels)
    told = averages.precision(values, weights, founders)
    if averages.effective_founders(weights, founders) < _FEW_FOUNDERS:
        told = averages.Precision(*(np.full_like(number, np.nan) for number in told))
    return {
        "mean": averages.mean(values, weights),
        "std": averages.std(values, weights),
        percent(low): below,
        percent(high): above,
        "mcse_mean": told.mean_error,
        "mcse_std": told.std_error,
        "n_eff": told.draws,
    }


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
    from rich.console import Console

    weights = particles.pooled_weights.ravel()

    def entries(site: str) -> Entries:
        values = particles.pooled(site)
        flat = values.reshape(len(values), -1)
        return Entries(
            values.shape[1:],
            lambda: averages.std(flat, weights),
            lambda shown: _numbers(particles, flat[:, shown], prob),
        )

    quantiles = map(percent, levels_of(prob))
    columns = ("mean", "std", *quantiles, "mcse_mean", "mcse_std", "n_eff")
    print_sites({site: entries(site) for site in particles.samples}, columns)
    Console().print(rests_on(particles), highlight=False)
