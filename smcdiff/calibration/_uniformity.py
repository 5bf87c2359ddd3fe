"""An exact test that ranks are uniform, and the simultaneous band of their distribution function.

S ranks fall into cells, of probability p_j each if the posterior is right. R_i, the number in the
first i cells, is then binomial for each i; the statistic is the least of its two-sided tail
probabilities over all i (Säilynoja et al. 2022, section 2.2, where the cells are equal). Its
distribution is computed and not simulated. The counts are Poisson with means S p_j, given that they
sum to S, so the probability that every R_i stays within its bounds is a chain of convolutions.

References:
    T. Säilynoja, P.-C. Bürkner and A. Vehtari (2022), Graphical test for discrete uniformity and
    its applications in goodness-of-fit evaluation and multiple sample comparison, Stat. Comput. 32.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

_ROUNDING = 1e-9
"""Relative: tail probabilities that differ by less are one."""


def p_value(counts: Int[np.ndarray, " cells"], chances: tuple[float, ...]) -> float:
    """P-value of counts in cells; exact, so that it is below a level at most that often.

    Args:
        counts: ranks in each cell.
        chances: of the cells, summing to 1.

    Returns:
        The probability of a statistic as extreme under uniformity; 1 without any ranks. Below
        1e-12 it is rounding.
    """
    total = int(counts.sum())
    if total == 0:
        return 1.0
    tails = _tails(total, chances)
    below = np.cumsum(counts)[:-1]
    least = float(tails[np.arange(len(below)), below].min())
    return float(np.clip(1.0 - _inside(tails > least * (1.0 + _ROUNDING), chances), 0.0, 1.0))


@lru_cache(maxsize=64)
def band(
    total: int, chances: tuple[float, ...], prob: float
) -> tuple[Float[np.ndarray, " cuts"], Float[np.ndarray, " cuts"]]:
    """The band that holds the whole distribution function of ``total`` ranks.

    Args:
        total: number of ranks.
        chances: of the cells, summing to 1.
        prob: probability of the band, at least.

    Returns:
        The lowest and the highest share of ranks in the first i cells, for all i but the last.
    """
    tails = _tails(total, chances)
    levels = np.unique(tails)
    low, high = 0, len(levels) - 1  # the least level always leaves enough; bisection for the most
    while low < high:
        middle = (low + high + 1) // 2
        wide = _inside(tails >= levels[middle] * (1.0 - _ROUNDING), chances) >= prob
        low, high = (middle, high) if wide else (low, middle - 1)
    allowed = tails >= levels[low] * (1.0 - _ROUNDING)
    lowest = np.argmax(allowed, axis=1)
    highest = total - np.argmax(allowed[:, ::-1], axis=1)
    return lowest / total, highest / total


@lru_cache(maxsize=16)
def _tails(total: int, chances: tuple[float, ...]) -> Float[np.ndarray, "cuts counts"]:
    """Two-sided tail probability of each number of ranks below each cut."""
    from scipy.stats import binom

    cuts = np.cumsum(chances)[:-1, None]
    counts = np.arange(total + 1)[None]
    lower, upper = binom.cdf(counts, total, cuts), binom.sf(counts - 1, total, cuts)
    return 2.0 * np.minimum(lower, upper)


def _inside(allowed: Bool[np.ndarray, "cuts counts"], chances: tuple[float, ...]) -> float:
    """The probability that the number below every cut is an allowed one."""
    from scipy.stats import poisson

    total = allowed.shape[1] - 1
    kernels = {chance: _poisson(total, chance) for chance in set(chances)}
    weights = np.zeros(total + 1)
    weights[0] = 1.0
    for chance, row in zip(chances[:-1], allowed, strict=True):
        weights = np.convolve(weights, kernels[chance])[: total + 1] * row
    last = kernels[chances[-1]]
    ends = weights[::-1][: len(last)] @ last[: total + 1]
    return float(ends / poisson.pmf(total, total))


def _poisson(total: int, chance: float) -> Float[np.ndarray, " counts"]:
    """Poisson probabilities of the counts of a cell, as far as they count."""
    from scipy.stats import poisson

    mean = total * chance
    most = int(min(total, mean + 40.0 * mean**0.5 + 40.0))
    return poisson.pmf(np.arange(most + 1), mean)
