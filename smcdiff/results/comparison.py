"""`compare`: which declared model do the data prefer, and how sure is that?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from io import StringIO
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from smcdiff.errors import InputError
from smcdiff.results._evidence import evidence_in_words
from smcdiff.results._particles import WeightedParticles
from smcdiff.results._weighted import FEW_CHAINS

# Where a few weights count for all, log Z_hat is too low, by more than the distance between chains
# that have all missed the same: with log-normal weights whose logarithms have a standard deviation
# of w nat by about w^2 / 2, while four chains lie less than w apart. The square of four times their
# distance holds the truth in 98 % of such runs (tests/results/test_comparison.py). Too high by c
# nat it is with a probability of exp(-c) at most, for Z_hat is unbiased.
_LEAST_REACH = 100.0
"""Nat by which an evidence may be off whose error cannot be told, at least."""
_SPREADS = 4.0
"""The same is the square of the distance between its lowest and highest chain, times this."""
_SAME = 0.01
"""Ends of intervals that differ by less are the same."""
_NUM_DRAWS = 4000
"""Of the evidences within their errors, for the intervals of probabilities."""
_WIDTH = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Models by their evidence, the best first; print it.

    The probabilities are those of the models given the data, if one of them is the true one:
    p(model) Z / sum of p(model) Z (Kass and Raftery 1995, eq. 3). Unlike the weights of
    ``arviz.compare``, which are those of predictions, they depend on the priors of x and of the
    unknown parameters: a wider prior is a bolder model.

    Attributes:
        names: of the models.
        log_evidence: (m,) log of each, nat; of all chains, `Posterior.pooled_log_evidence`.
        log_evidence_se: (m,) their standard errors; NaN where they cannot be told.
        reach: (m,) nat by which those without a standard error are taken to be off at most: 100, or
            the square of four times the distance between their lowest and highest chain, whichever
            is more; infinite with fewer than four chains. 0 of the others.
        prior: (m,) probabilities of the models before the data.
        remarks: what hinders the standard error of a model, by its name.
    """

    names: tuple[str, ...]
    log_evidence: Float[np.ndarray, " m"]
    log_evidence_se: Float[np.ndarray, " m"]
    reach: Float[np.ndarray, " m"]
    prior: Float[np.ndarray, " m"]
    remarks: dict[str, str]

    @property
    def probabilities(self) -> dict[str, float]:
        """Of the models, given the data."""
        return dict(zip(self.names, self._probabilities(self.log_evidence).tolist(), strict=True))

    def probability_interval(self, prob: float = 0.9) -> dict[str, tuple[float, float]]:
        """Where the probabilities lie, as far as the evidences' Monte-Carlo errors tell.

        An evidence without a standard error is moved up and down by its `reach`. Where that leaves
        the interval of another model as it is, to 0.01, that interval is told: a hopeless model
        hides none of the others.

        Args:
            prob: of the central interval.

        Returns:
            name -> (low, high); NaN for a model whose own error cannot be told, and for those whose
            interval depends on such a one.
        """
        untold = np.isnan(self.log_evidence_se)
        lowest, highest = (self._intervals(sign * self.reach, prob) for sign in (-1.0, 1.0))
        told = ~untold & np.all(np.abs(highest - lowest) < _SAME, axis=0)
        # The interval at both ends, and at all that lies between them.
        low, high = np.minimum(lowest, highest)[0], np.maximum(lowest, highest)[1]
        ends = np.where(told, [low, high], np.nan).T.tolist()
        return {name: (low, high) for name, (low, high) in zip(self.names, ends, strict=True)}

    def _intervals(self, moved: Float[np.ndarray, " m"], prob: float) -> Float[np.ndarray, "2 m"]:
        """Ends of the intervals of evidences that are moved, nat, with the errors that are told."""
        draws = np.random.default_rng(0).normal(size=(_NUM_DRAWS, len(self.names)))
        moved = np.clip(moved, -1e9, 1e9)  # infinity less infinity would be no number
        drawn = self.log_evidence + moved + np.nan_to_num(self.log_evidence_se) * draws
        return np.quantile(self._probabilities(drawn), [0.5 - prob / 2, 0.5 + prob / 2], axis=0)

    def log_bayes_factor(self, one: str, other: str) -> tuple[float, float]:
        """Log Z of a model less that of another, nat, and the standard error of that.

        Raises:
            InputError: a name that is none.
        """
        for name in (one, other):
            if name not in self.names:
                raise InputError(f"log_bayes_factor: no model '{name}'; there are {self.names}")
        i, j = self.names.index(one), self.names.index(other)
        error = np.hypot(self.log_evidence_se[i], self.log_evidence_se[j]) if i != j else 0.0
        return float(self.log_evidence[i] - self.log_evidence[j]), float(error)

    def _needed(self, name: str) -> str:
        """By how much an evidence without an error would have to be off to change the ranking."""
        logs = self.log_evidence + np.log(self.prior)
        own = self.names.index(name)
        others = np.delete(logs, own)
        apart = logs[own] - others.max()
        other = np.delete(np.array(self.names), own)[np.argmax(others)]
        way = "higher" if apart < 0.0 else "lower"
        reach = self.reach[own]
        taken = f"taken to be at most {reach:.0f} nat off; " if np.isfinite(reach) else ""
        return (
            f"{taken}it would have to be {abs(apart):.1f} nat {way} to be as probable as '{other}'"
        )

    def _probabilities(self, log_evidence: Float[np.ndarray, "... m"]) -> np.ndarray:
        logs = log_evidence + np.log(self.prior)
        shares = np.exp(logs - logs.max(axis=-1, keepdims=True))
        return shares / shares.sum(axis=-1, keepdims=True)

    def __str__(self) -> str:
        """The table."""
        from rich.box import SIMPLE
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        rows, probabilities = Table(box=SIMPLE), self.probabilities
        intervals = self.probability_interval()
        rows.add_column("model", overflow="fold")
        for column in ("log evidence", "log Bayes factor", "probability", "90 %"):
            rows.add_column(column, justify="right", no_wrap=True)
        for index, name in enumerate(self.names):
            own = _with_error(self.log_evidence[index], self.log_evidence_se[index])
            against = _with_error(*self.log_bayes_factor(name, self.names[0])) if index else "0"
            low, high = intervals[name]
            between = "unknown" if np.isnan(low) else f"{low:.3g} to {high:.3g}"
            rows.add_row(Text(name), own, against, f"{probabilities[name]:.3g}", between)
        file = StringIO()
        console = Console(file=file, width=_WIDTH, color_system=None)
        console.print(rows)
        for name, remark in self.remarks.items():
            console.print(Text(f"{name}: {remark}; {self._needed(name)}"))
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _with_error(value: float, error: float) -> str:
    return f"{value:.2f} +- {'?' if np.isnan(error) else f'{error:.2f}'}"


def compare(
    candidates: Mapping[str, Any],
    *args: Any,
    key: PRNGKeyArray | None = None,
    prior: Mapping[str, float] | None = None,
    **kwargs: Any,
) -> Comparison:
    """Compares models of the same data, that differ in operators, noise or priors.

    Args:
        candidates: name -> a `Posterior`, or a sampler, `SMC`, that is run here on the data.
        *args: arguments of the samplers' models.
        key: random key of the runs; None is ``jax.random.key(0)``. Each has its own.
        prior: probabilities of the models before the data, up to a factor; None is equal ones.
        **kwargs: keyword arguments of the samplers' models, the observations among them.

    Returns:
        The comparison; print it.

    Raises:
        InputError: fewer than two models, posteriors of other data than the first one's, without
            weights, or whose evidence is that of a path of y (`proposals.TwistedPath`), or
            probabilities that do not fit.
    """
    if len(candidates) < 2:
        raise InputError(f"compare: {len(candidates)} models; give two or more, by name")
    shares = _prior(tuple(candidates), prior)
    found = {name: one for name, one in candidates.items() if isinstance(one, WeightedParticles)}
    others = {name: one for name, one in candidates.items() if name not in found}
    for name, one in others.items():
        if not callable(getattr(one, "run", None)):
            raise InputError(
                f"compare: model '{name}' is a {type(one).__name__}; give a Posterior, or an SMC"
                " together with its data"
            )
    keys = jax.random.split(jax.random.key(0) if key is None else key, max(len(others), 1))
    for (name, one), own in zip(others.items(), keys, strict=False):
        found[name] = one.run(own, *args, **kwargs)
    posteriors = {name: found[name] for name in candidates}
    _check(posteriors)
    evidence = np.array([p.pooled_log_evidence for p in posteriors.values()])
    errors = np.array([p.pooled_log_evidence_se for p in posteriors.values()])
    order = np.argsort(-evidence, kind="stable")
    names = [list(posteriors)[index] for index in order]
    remarks = {n: evidence_in_words(posteriors[n]) for n in names
               if np.isnan(posteriors[n].pooled_log_evidence_se)}  # fmt: skip
    reach = np.array([_reach(posteriors[name]) for name in names])
    return Comparison(tuple(names), evidence[order], errors[order], reach, shares[order], remarks)


def _reach(posterior: WeightedParticles) -> float:
    """Nat by which an evidence may be off; see `Comparison`."""
    if not np.isnan(posterior.pooled_log_evidence_se):
        return 0.0
    if posterior.log_evidence.size < FEW_CHAINS:
        return float("inf")
    return max(_LEAST_REACH, (_SPREADS * float(np.ptp(posterior.log_evidence))) ** 2)


def _prior(names: tuple[str, ...], prior: Mapping[str, float] | None) -> np.ndarray:
    if prior is None:
        return np.full(len(names), 1.0 / len(names))
    if set(prior) != set(names):
        raise InputError(f"compare: prior is of {sorted(prior)}, and the models are {list(names)}")
    shares = np.array([float(prior[name]) for name in names])
    if not (np.all(np.isfinite(shares)) and np.all(shares > 0.0)):
        raise InputError(f"compare: prior is {dict(prior)}; each must be positive")
    return shares / shares.sum()


def _check(posteriors: dict[str, WeightedParticles]) -> None:
    """Raises ``InputError`` where evidences cannot be compared."""
    (first, other), *rest = posteriors.items()
    for name, posterior in posteriors.items():
        if not posterior.weighted:
            raise InputError(
                f"compare: model '{name}' was sampled with weights off, which has no evidence; use"
                " weighted=True"
            )
        if posterior.chains_alike:
            raise InputError(
                f"compare: each chain of model '{name}' has its own path of y, whose evidence it"
                " tells and not the model's; use proposals.Twisted() or KrylovMomentMatched()"
            )
    for name, posterior in rest:
        same = posterior.observed.keys() == other.observed.keys()
        if not same or not all(
            np.array_equal(value, other.observed[site], equal_nan=True)
            for site, value in posterior.observed.items()
        ):
            raise InputError(
                f"compare: models '{first}' and '{name}' have other data (sites"
                f" {sorted(other.observed)} and {sorted(posterior.observed)}); their evidences"
                " compare for the same values at sites of the same names only"
            )
