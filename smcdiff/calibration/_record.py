"""The record of a calibration: the ranks of the true values, and what follows from them.

The rank of a truth among L draws is the number of draws below it; where the posterior is right it
is uniform on 0, ..., L (Talts et al. 2018). TARP's statistic is such a rank too: the number of
draws that lie nearer than the truth to a reference point, which was drawn without knowledge of the
truth (Lemos et al. 2023). The share of simulations where it is below c (L + 1) is the coverage of
the credible regions of probability c around the references. So one test and one band serve both.

References:
    S. Talts, M. Betancourt, D. Simpson, A. Vehtari and A. Gelman (2018), Validating Bayesian
    inference algorithms with simulation-based calibration, arXiv:1804.06788.
    P. Lemos, A. Coogan, Y. Hezaveh and L. Perreault-Levasseur (2023), Sampling-based accuracy
    testing of posterior estimators for general inference, ICML.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from smcdiff.calibration._uniformity import band, p_value
from smcdiff.errors import InputError, did_you_mean


class Coverage(NamedTuple):
    """Coverage of credible regions, by their probability.

    Attributes:
        prob: (regions,) the probability that the sampler gives to each, increasing to 1.
        share: (regions,) of simulations whose truth lies inside.
        chances: (regions,) by how much ``prob`` grows from one region to the next.
    """

    prob: Float[np.ndarray, " regions"]
    share: Float[np.ndarray, " regions"]
    chances: tuple[float, ...]

    def at(self, prob: float) -> float:
        """The share of truths inside a region of this probability, between two interpolated."""
        return float(np.interp(prob, [0.0, *self.prob], [0.0, *self.share]))


@dataclasses.dataclass(frozen=True, eq=False)
class CalibrationRecord:
    """The ranks of S simulations' truths, among L draws of each posterior.

    Attributes:
        ranks: quantity -> (S,) number of draws below the truth, 0 to L; ties are broken at random.
        tarp_ranks: ``"TARP"``, and ``"TARP x"`` for each site where there are several, -> (S,)
            number of draws nearer than the truth to the random reference point.
        simulations: (S,) which simulations they are; those that failed are left out.
        effective_draws: (S,) effective number of particles of each posterior (Kish), or the number
            of draws of a sampler without weights.
        num_draws: L.
        failures: simulation -> why it has no posterior.
        attrs: how the calibration was made.
    """

    ranks: dict[str, Int[np.ndarray, " s"]]
    tarp_ranks: dict[str, Int[np.ndarray, " s"]]
    simulations: Int[np.ndarray, " s"]
    effective_draws: Float[np.ndarray, " s"]
    num_draws: int
    failures: dict[int, str] = dataclasses.field(default_factory=dict)
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def p_values(self) -> dict[str, float]:
        """P-value of each quantity, TARP's included: that its ranks are uniform."""
        chances = self._equal_chances()
        return {name: p_value(self._counts(name), chances) for name in self._all_ranks()}

    @property
    def p_value(self) -> float:
        """That all quantities are calibrated: the least p-value times their number (Bonferroni).

        At most 1. It holds whatever the dependence between the quantities: where all posteriors are
        right it is below 0.01 in at most one calibration of a hundred.
        """
        found = self.p_values
        return min(1.0, len(found) * min(found.values()))

    def passes(self, level: float = 0.01) -> bool:
        """Whether nothing was found wrong: `p_value` is at least the level, and no run failed.

        Args:
            level: how often a right sampler may be refused.
        """
        return not self.failures and self.p_value >= level

    def coverage(self, name: str = "TARP") -> Coverage:
        """Coverage of the credible regions of a quantity, of all probabilities.

        Args:
            name: of a quantity, for its central intervals; or ``"TARP"``, ``"TARP x"``, for balls
                around random reference points.

        Raises:
            InputError: no such quantity.
        """
        counts, chances = self._counts(name), self._equal_chances()
        if name in self.ranks:
            counts, chances = _folded(counts)
        share = np.cumsum(counts) / max(counts.sum(), 1)
        return Coverage(np.cumsum(chances), share, chances)

    def coverage_error(self, name: str = "TARP") -> float:
        """Mean over all probabilities of abs(coverage - probability); see `coverage`.

        Of a right posterior it is about 0.31 / sqrt(S) by chance, 0.014 for 500 simulations.

        Args:
            name: as for `coverage`.

        Raises:
            InputError: no such quantity.
        """
        found = self.coverage(name)
        return float(np.mean(np.abs(found.share - found.prob)))

    def coverage_band(
        self, name: str = "TARP", prob: float = 0.95
    ) -> tuple[Float[np.ndarray, " regions"], Float[np.ndarray, " regions"]]:
        """Lowest and highest coverage, between which a right posterior's whole curve lies.

        Args:
            name: as for `coverage`.
            prob: with this probability, at least.

        Raises:
            InputError: no such quantity.
        """
        low, high = band(max(len(self.simulations), 1), self.coverage(name).chances, prob)
        return np.append(low, 1.0), np.append(high, 1.0)

    def ranks_of(self, name: str) -> Int[np.ndarray, " s"]:
        """The ranks of a quantity, or of TARP.

        Raises:
            InputError: no such quantity.
        """
        found = self._all_ranks()
        if name not in found:
            raise InputError(f"no quantity '{name}': {did_you_mean(name, found)}")
        return found[name]

    def _all_ranks(self) -> dict[str, Int[np.ndarray, " s"]]:
        return {**self.ranks, **self.tarp_ranks}

    def _counts(self, name: str) -> Int[np.ndarray, " cells"]:
        return np.bincount(self.ranks_of(name), minlength=self.num_draws + 1)

    def _equal_chances(self) -> tuple[float, ...]:
        return (1.0 / (self.num_draws + 1),) * (self.num_draws + 1)


def _folded(
    counts: Int[np.ndarray, " cells"],
) -> tuple[Int[np.ndarray, " regions"], tuple[float, ...]]:
    """Counts of the cells that a central interval gains as it grows, and their chances."""
    cells = len(counts)
    distance = np.abs(2 * np.arange(cells) - (cells - 1)) // 2
    gained = np.bincount(distance)
    return np.bincount(distance, counts).astype(int), tuple(gained / cells)


def joined(records: Sequence[CalibrationRecord]) -> dict[str, Any]:
    """The fields, but ``attrs``, of one record of all the simulations.

    Args:
        records: of the same quantities and number of draws, at least one.
    """
    first = records[0]

    def together(name: str) -> dict[str, np.ndarray]:
        return {
            quantity: np.concatenate([getattr(record, name)[quantity] for record in records])
            for quantity in getattr(first, name)
        }

    return {
        "ranks": together("ranks"),
        "tarp_ranks": together("tarp_ranks"),
        "simulations": np.concatenate([record.simulations for record in records]),
        "effective_draws": np.concatenate([record.effective_draws for record in records]),
        "num_draws": first.num_draws,
        "failures": {item: why for record in records for item, why in record.failures.items()},
    }


def limited(record: CalibrationRecord, count: int) -> dict[str, Any]:
    """The fields of the record of the simulations below a number."""
    kept = record.simulations < count
    return {
        **vars(record),
        "ranks": {name: ranks[kept] for name, ranks in record.ranks.items()},
        "tarp_ranks": {name: ranks[kept] for name, ranks in record.tarp_ranks.items()},
        "simulations": record.simulations[kept],
        "effective_draws": record.effective_draws[kept],
        "failures": {item: why for item, why in record.failures.items() if item < count},
    }
