"""Weight degeneracy: a report in plain language, and the warning at the end of a run."""

from __future__ import annotations

import dataclasses
import os
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from smcdiff.errors import DegeneracyWarning
from smcdiff.results import _weighted as averages
from smcdiff.results._arviz import pareto_shape
from smcdiff.results._evidence import evidence_in_words, told_by_chains_alone
from smcdiff.results._particles import WeightedParticles
from smcdiff.smc.genealogy import FEW_FOUNDERS

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"

# Thresholds of the report, each where a user should begin to look closer.
_LOW_ESS = 0.1
"""Fraction of the particles: below it nine of ten are wasted, and resampling copies few."""
_COLLAPSE = 0.2
"""What the last step leaves of the ESS: a twist that knows the likelihood leaves nearly all."""
_LONG_STEP = 1.0 / 3.0
"""What a step leaves of the ESS where its log weights have a variance of about one."""
_LONG_STEPS = 0.1
"""Share of such steps, and at least three. `Twisted` with the shipped digits has 10 of 25 uniform
ones, and one of 60 that are focused; analytic priors have none, but with DDRM on fine grids."""
_HEAVY = 0.2
"""Weight of one particle: no average of that chain rests on more than 25 (1 / 0.2^2) draws."""
_TELLING = 100
"""Particles that are advised where there are too few to tell anything by."""
_SPREAD = 0.5
"""Nat between chains: the better of two chains so far apart counts twice the other."""
_BAD_K = 0.7
"""Above it, averages converge too slowly to be of use (Vehtari et al. 2024, of k-hat)."""

_FAR = 10.0
"""Prior widths: draws of a prior lie at 1, and at most at a few where x has few dimensions."""

# DPS with a step of 10 and a denoiser that grows as x^3 ended at infinity; with 300 and a linear
# one, 118 prior widths away. Each of these brought the first to 2 at most; a smaller scale did so
# with the second, a threshold brought it to 25. More steps changed nothing.
_CALMER = (
    "the data are in other units, or guidance is unstable; try a smaller scale of the guidance, a"
    " threshold of the prior (smcdiff.thresholding), or a proposal whose step knows the noise,"
    " PiGDM() or MomentMatched()"
)
"""What may be wrong where a heuristic's guidance has driven particles away, and what helps."""
_SCALED = ("DPS(", "ClassifierGuidance(", "ClassifierFree(")
"""Proposals whose guidance has a scale, as they are written in `attrs`."""
_OUT_OF_REACH = (
    "the data are in other units than the prior, or the model's mean has an offset that they lack;"
    " compare draws of the prior, seen through the model, with the data. With a learned prior try a"
    " threshold (smcdiff.thresholding), which keeps the denoiser near what it has seen"
)
"""The same where the proposal's step knows the likelihood, and has no scale."""

# Nonlinear cases that are wrong with a warning: x^2, exp and tanh of each entry in 3 or 4
# dimensions, Z_hat / Z over 8 chains 0.38, 0.01 and 0.00 with 4,000 particles and 20 steps. With
# 16,000 it is 0.54, 0.04, 0.00; with later resampling 1.3, 0.29, 0.19 (standard errors 0.3, 0.09,
# 0.06); with both 0.96, 0.42, 0.16; with later resampling and 80 steps 0.72, 0.09, 0.02.
# `Bootstrap` was worse than the default where it was tried. It is right where two million draws of
# the prior tell Z to 2 %, as 2,500 effective ones do (experiments/nonlinear).
_BETTER = (
    "; resampling later (ess_threshold=lambda log_snr: 0.5 * (log_snr > 0)); a proposal that knows"
    " more of the observation (docs: which proposal when), or Bootstrap where one draw of the prior"
    " in a thousand fits the data. More steps help where the observation is linear-Gaussian, and"
    " may harm elsewhere"
)
"""What helps where the proposal misses the target, after `_more`, in this order."""

# Thresholds of the warning, where numbers are no longer worth reading; a good run is far from them.
_COLLAPSED_ESS = 5.0
"""Particles: fewer leave an average's error at half the spread, and modes to chance."""


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        min_ess: smallest ESS of any chain and step, as a fraction of the particles.
        min_ess_step: where it happened.
        final_ess: ESS of the returned particles, smallest over the chains.
        founders: surviving founders, smallest over the chains; those of all chains together where
            chains count alike (`smcdiff.Posterior.chains_alike`).
        largest_weight: largest normalised weight of any chain; of all of them together where they
            count alike.
        pareto_k: largest k-hat of any chain, by ArviZ; NaN where it cannot be told, minus infinity
            where all weights are equal.
        pooled_ess: ESS of the weights of all chains, pooled by their evidence or alike, in
            particles.
        chains_alike: whether chains count alike.
        evidence_spread: standard deviation of log Z_hat over the chains, nat; NaN for one chain.
        evidence_error: standard error of the pooled log evidence, nat, from four chains or more, or
            from the founders of fewer; NaN where it cannot be told.
        evidence: the pooled log evidence with its standard error, in words.
        findings: what is wrong, and what to try; empty where nothing is.
        untold: what only more chains would show, and how many; empty with four chains or more, or
            weights off.
    """

    min_ess: float
    min_ess_step: int
    final_ess: float
    founders: int
    largest_weight: float
    pareto_k: float
    pooled_ess: float
    chains_alike: bool
    evidence_spread: float
    evidence_error: float
    evidence: str
    findings: tuple[str, ...]
    untold: str

    def __str__(self) -> str:
        """The report."""
        spread, pareto_k = (
            "unknown" if np.isnan(value) else f"{value:.2f}{unit}"
            for value, unit in ((self.evidence_spread, " nat"), (self.pareto_k, ""))
        )
        # Equal weights, those of a run without weights among them, have no tail.
        tail = "" if np.isneginf(self.pareto_k) else f"; Pareto k-hat: {pareto_k}"
        numbers = (
            f"filter ESS: smallest {self.min_ess:.1%} of the particles (step {self.min_ess_step}),"
            f" {self.final_ess:.1f} at the end; {self.pooled_ess:.1f} of all chains,"
            f" {'which count alike' if self.chains_alike else 'pooled by their evidence'}\n"
            f"surviving founders: {self.founders}; largest weight:"
            f" {self.largest_weight:.3f}{tail}\n"
            f"log evidence: {self.evidence}; standard deviation between chains: {spread}\n"
        )
        verdict = [*(self.findings or ["no sign of degeneracy"]), *filter(None, [self.untold])]
        note = (
            "R-hat and ESS of the resampled draws measure neither mixing nor Monte-Carlo error;"
            " the numbers above do."
        )
        return numbers + "".join(f"- {line}\n" for line in verdict) + note


def diagnose(posterior: WeightedParticles) -> Diagnosis:
    """Looks for weight degeneracy.

    Args:
        posterior: the result of a run.

    Returns:
        The numbers, and findings with what to try.

    Raises:
        InputError: ArviZ, which fits k-hat, is not installed.
    """
    particles = posterior.log_weights.shape[1]
    relative = posterior.ess / particles
    chain, step = np.unravel_index(np.argmin(relative), relative.shape)
    shapes = [pareto_shape(row) for row in posterior.log_weights]
    # Chains that count alike need not be good one by one: they are parts of one sample.
    alike, founders = posterior.chains_alike, posterior.num_founders[:, -1]
    weights = posterior.pooled_weights if alike else np.exp(posterior.log_weights)
    numbers = {
        "min_ess": float(relative[chain, step]),
        "min_ess_step": int(step),
        "final_ess": float(posterior.ess[:, -1].min()),
        "founders": int(founders.sum() if alike else founders.min()),
        "largest_weight": float(weights.max()),
        "pareto_k": float(np.fmax.reduce(shapes)),  # of those that are known
        "pooled_ess": averages.effective_number(posterior.pooled_weights.ravel()),
        "chains_alike": alike,
        "evidence_spread": _evidence_spread(posterior),
        "evidence_error": posterior.pooled_log_evidence_se,
        "evidence": evidence_in_words(posterior),
        "untold": told_by_chains_alone(posterior),
    }
    far = _far_away(posterior)
    findings = [] if far is None else [far]
    if posterior.weighted:
        for rule in (_of_steps, _of_particles, _of_chains):
            findings += rule(posterior, numbers)
    else:
        findings.append(
            "weights were off: the draws are those of a heuristic sampler, not of the posterior,"
            " and there is no evidence; run with weighted=True to see how far off they are"
        )
    return Diagnosis(**numbers, findings=tuple(findings))


def _far_away(posterior: WeightedParticles) -> str | None:
    """Says that particles lie where the prior has none; None where they do not."""
    if posterior.prior_widths is None:
        return None
    square = np.sum(posterior.pooled_weights * posterior.prior_widths.astype(np.float64) ** 2)
    if not square > _FAR**2:
        return None
    site, proposal = next(iter(posterior.samples)), str(posterior.attrs.get("proposal", ""))
    return (
        f"the particles of site '{site}' lie {np.sqrt(square):.3g} prior widths from the prior's"
        f" centre, draws of it at 1:"
        f" {_CALMER if any(name in proposal for name in _SCALED) else _OUT_OF_REACH}"
    )


def _evidence_spread(posterior: WeightedParticles) -> float:
    """See `Diagnosis`."""
    if not posterior.weighted or posterior.log_evidence.size < 2:
        return float("nan")
    return float(np.std(posterior.log_evidence, ddof=1))


def _effective_chains(posterior: WeightedParticles) -> float:
    """How many chains count as their evidences pool them: one over the sum of squared shares."""
    return averages.effective_number(np.sum(posterior.pooled_weights, axis=1))


def _kept(posterior: WeightedParticles) -> Float[np.ndarray, "c steps"]:
    """What each step but the first leaves of the ESS that it began with."""
    particles = posterior.log_weights.shape[1]
    before = np.where(posterior.resampled[:, 1:], particles, posterior.ess[:, :-1])
    return posterior.ess[:, 1:] / before


def _long_steps(posterior: WeightedParticles) -> Int[np.ndarray, " long"]:
    """The steps that are too long for weights, in the chain that has most; none if few are.

    The last is not among them: its weights are those of the likelihood. Nor are they too long where
    the particles are so many that all these steps together leave five. Fewer than ten particles
    do not tell.
    """
    particles = posterior.log_weights.shape[1]
    kept = _kept(posterior)[:, :-1]
    long = kept < _LONG_STEP
    chain = np.argmax(long.sum(axis=1))
    steps = 1 + np.flatnonzero(long[chain])
    few = len(steps) < max(3, _LONG_STEPS * long.shape[1])
    left = particles * np.prod(kept[chain, long[chain]])
    return steps[:0] if few or left >= _COLLAPSED_ESS or particles < FEW_FOUNDERS else steps


def _more(posterior: WeightedParticles) -> str:
    """More of what: of particles on one path, that path is all that can be seen."""
    return "more chains" if posterior.chains_alike else "more particles, in 4 chains or more"


def _of_steps(posterior: WeightedParticles, numbers: dict) -> Iterator[str]:
    """Steps at which the particles lost more than they should."""
    step = numbers["min_ess_step"]
    if numbers["min_ess"] < _LOW_ESS:
        yield (
            f"the ESS fell to {numbers['min_ess']:.1%} at step {step} (log-SNR"
            f" {posterior.log_snr[step]:.1f}): the proposal misses the target there; try,"
            f" in this order, {_more(posterior)}{_BETTER}"
        )
    long = _long_steps(posterior)
    if len(long):
        low, high = posterior.log_snr[long[0] - 1], posterior.log_snr[long[-1]]
        yield (
            f"at {len(long)} of {len(posterior.log_snr) - 1} steps, between log-SNR {low:.1f} and"
            f" {high:.1f}, one step cut the ESS to less than a third: the steps are too long for"
            " weights; where the observation is linear-Gaussian try more of them there"
            f" (grid=schedules.Focused({low:.1f}, {high:.1f})), or fewer if the proposal draws"
            " afresh at every level (DDRM, DAPS); else more particles and chains first."
            " smcdiff.diagnostics.weights tells whether it is the proposal's doing or the twist's"
        )
    last = _kept(posterior)[:, -1].min()
    if last < _COLLAPSE:
        yield (
            f"the last step cut the ESS to {last:.1%} of what it was: the likelihood is"
            " sharper than the last twist; try more particles, a grid that ends at lower noise, or"
            " check that the noise of the observation is not understated"
        )


def _of_particles(posterior: WeightedParticles, numbers: dict) -> Iterator[str]:
    """Too few of them, where they count."""
    chains, particles = posterior.log_weights.shape
    together = chains * particles if posterior.chains_alike else particles
    if together < FEW_FOUNDERS:
        count = f"{together} particle{'' if together == 1 else 's'}"
        more = "chains" if posterior.chains_alike else f"particles, {_TELLING} say"
        yield (
            f"{count}: nothing can be told of the weights of so few, however even they look; try"
            f" more {more}"
        )
        return
    if numbers["founders"] < FEW_FOUNDERS:
        # More particles of one path share it, and moves of them would leave it.
        cure = (
            "chains"
            if posterior.chains_alike
            else ("particles or chains, and proposals.Rejuvenated to move copies apart")
        )
        yield (
            f"few founders survive ({numbers['founders']}): the draws share their early history, so"
            f" modes decided at high noise may be missing; try more {cure}"
        )
    if numbers["largest_weight"] > _HEAVY:
        whose, more = (
            ("the weight", "more chains")
            if posterior.chains_alike
            else ("a chain's weight", "more of them")
        )
        yield (
            f"one particle carries {numbers['largest_weight']:.0%} of {whose}; averages rest on few"
            f" particles: try {more}"
        )
    if numbers["pareto_k"] > _BAD_K:
        yield (
            f"Pareto k-hat is {numbers['pareto_k']:.2f} (above {_BAD_K}): weighted averages are"
            " unreliable; try a better informed proposal or more particles"
        )


def _of_chains(posterior: WeightedParticles, numbers: dict) -> Iterator[str]:
    """Chains that do not agree."""
    if numbers["evidence_spread"] > _SPREAD and posterior.chains_alike:
        yield (
            f"log evidence differs between chains by {numbers['evidence_spread']:.1f} nat"
            " (standard deviation), for each has a path of its own, and chains count alike. The"
            " draws may be used; do not compare models by the evidence, which is known no better"
            " than that: try more chains, and more particles in each, if you must"
        )
    elif numbers["evidence_spread"] > _SPREAD:
        yield (
            f"log evidence differs between chains by {numbers['evidence_spread']:.1f} nat"
            f" (standard deviation), so that of {posterior.log_evidence.size} chains"
            f" {_effective_chains(posterior):.1f} count: pooled results rest on those of largest"
            " evidence, right or wrong; try more particles, or where that does not help another"
            " proposal"
        )


def warn_if_degenerate(posterior: WeightedParticles) -> None:
    """Warns, once, where a run's numbers are not worth reading; a good run passes in silence.

    It needs no ArviZ and costs microseconds, so that every run can end with it. `diagnose` says
    more, and begins to doubt earlier.

    Args:
        posterior: the result of a run.

    Warns:
        DegeneracyWarning: the ESS of a chain fell below 5 particles, or below a quarter of fewer
            than 20; or a tenth of the steps, and three at least, each cut it to less than a third
            and all of them together to less than 5 of 10 particles or more; or the log evidence of
            the chains has a standard deviation above 2 nat, where they are pooled by it; or one
            founder is left of 10 particles or more, unless as many chains count alike; or, with
            weights off too, particles lie above 10 prior widths away.
    """
    far = _far_away(posterior)
    reasons = [] if far is None else [f"{far[0].upper()}{far[1:]}."]
    reasons += _degenerate(posterior) if posterior.weighted else []
    if reasons:
        # The line named is the user's, which called the package, however deep in it this is.
        files = [entry.filename for entry in reversed(traceback.extract_stack())]
        outermost = max(i for i, file in enumerate(files) if file.startswith(_PACKAGE))
        warnings.warn(" ".join(reasons), DegeneracyWarning, stacklevel=outermost + 2)


def _degenerate(posterior: WeightedParticles) -> list[str]:
    """Why the weights are not worth reading, and what to try; nothing where they are."""
    particles, reasons = posterior.log_weights.shape[1], []
    chain, step = np.unravel_index(np.argmin(posterior.ess), posterior.ess.shape)
    worst = float(posterior.ess[chain, step])
    if worst < min(_COLLAPSED_ESS, particles / 4):
        reasons.append(
            f"The effective sample size fell to {worst:.1f} of {particles} particles at step"
            f" {step} of {posterior.ess.shape[1] - 1}, so that averages rest on very few of them."
        )
    long = _long_steps(posterior)
    if len(long):
        reasons.append(
            f"At {len(long)} of {posterior.ess.shape[1] - 1} steps one step cut the effective"
            " sample size to less than a third: the steps are too long for weights."
        )
    if _evidence_spread(posterior) > averages.CHAINS_APART and not posterior.chains_alike:
        reasons.append(
            f"The chains' log evidences lie {np.ptp(posterior.log_evidence):.1f} nat apart, so that"
            " pooled results are those of the chain of largest evidence, right or wrong."
        )
    many_chains = posterior.chains_alike and len(posterior.num_founders) >= FEW_FOUNDERS
    is_single = posterior.num_founders[:, -1].min() == 1
    if particles >= FEW_FOUNDERS and is_single and not many_chains:
        reasons.append(
            "All particles of a chain descend from one of the first step, so that what is decided"
            " at high noise was decided once, whatever the effective sample size."
        )
    if reasons:
        reasons.append(
            f"Try {_more(posterior)}, or a proposal that knows more of the observation;"
            " posterior.diagnose() says more."
        )
    return reasons
