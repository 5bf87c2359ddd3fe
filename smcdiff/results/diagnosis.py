"""A report on weight degeneracy in plain language.

The Pareto shape k-hat is fitted to the largest weights (Zhang and Stephens 2009; Vehtari et al.
2024, Pareto smoothed importance sampling): above 0.7 the weighted averages are unreliable, above 1
their variance is not even finite in the limit.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from smcdiff.smc.genealogy import evidence_variance

if TYPE_CHECKING:
    from smcdiff.results.posterior import Posterior

_LOW_ESS, _FEW_FOUNDERS, _HEAVY, _SPREAD, _BAD_K, _COLLAPSE = 0.1, 10, 0.2, 0.5, 0.7, 0.2


def pareto_shape(log_weights: np.ndarray) -> float:
    """Shape k of a generalised Pareto distribution fitted to the largest weights.

    Args:
        log_weights: (n,), any constant added.

    Returns:
        k-hat by the method of Zhang and Stephens (2009) on the min(n / 5, 3 sqrt(n)) largest
        weights; NaN for fewer than 5 of those, -inf where they are all equal.
    """
    weights = np.sort(np.exp(log_weights - np.max(log_weights)))
    count = int(min(0.2 * weights.size, 3 * np.sqrt(weights.size)))
    if count < 5:
        return float("nan")
    tail = weights[-count:] - weights[-count - 1]
    if tail[0] == tail[-1]:
        return float("-inf")
    tail = np.maximum(tail, 1e-12 * tail[-1])
    number = 30 + int(np.sqrt(count))
    quartile = tail[int(count / 4 + 0.5) - 1]
    index = np.arange(1, number + 1)
    theta = 1 / tail[-1] + (1 - np.sqrt(number / (index - 0.5))) / (3 * quartile)
    shapes = np.mean(np.log1p(-theta[:, None] * tail), axis=1)
    log_profile = count * (np.log(-theta / shapes) - shapes - 1)
    profile = np.exp(log_profile - log_profile.max())
    best = theta @ profile / profile.sum()
    shape = np.mean(np.log1p(-best * tail))
    # Weakly informative prior towards 1/2, worth ten observations.
    return float((count * shape + 10 * 0.5) / (count + 10))


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        min_ess: smallest ESS of any chain and step, as a fraction of the particles.
        min_ess_step: where it happened.
        final_ess: ESS of the returned particles, smallest over the chains.
        founders: surviving founders, smallest over the chains.
        largest_weight: largest normalised weight of any chain.
        pareto_k: largest k-hat of any chain.
        evidence_spread: standard deviation of log Z_hat over the chains, nat; NaN for one chain.
        evidence_error: standard error of one chain's log Z_hat from its founders, nat, the largest
            of the chains'; NaN where too few founders are left to tell. Resampling that is not
            multinomial adds less noise than it assumes (`smcdiff.smc.evidence_variance`).
        findings: what is wrong, and what to try; empty where nothing is.
    """

    min_ess: float
    min_ess_step: int
    final_ess: float
    founders: int
    largest_weight: float
    pareto_k: float
    evidence_spread: float
    evidence_error: float
    findings: tuple[str, ...]

    def __str__(self) -> str:
        """The report."""
        spread, error = (
            "unknown" if np.isnan(value) else f"{value:.2f} nat"
            for value in (self.evidence_spread, self.evidence_error)
        )
        numbers = (
            f"filter ESS: smallest {self.min_ess:.1%} of the particles (step {self.min_ess_step}),"
            f" {self.final_ess:.1f} at the end\n"
            f"surviving founders: {self.founders}; largest weight: {self.largest_weight:.3f};"
            f" Pareto k-hat: {self.pareto_k:.2f}\n"
            f"standard deviation of the log evidence: {spread} between chains, {error} from the"
            " founders of one\n"
        )
        verdict = [f"- {finding}" for finding in self.findings] or ["- no sign of degeneracy"]
        note = (
            "R-hat and ESS of the resampled draws measure neither mixing nor Monte-Carlo error;"
            " the numbers above do."
        )
        return numbers + "\n".join(verdict) + "\n" + note


def diagnose(posterior: Posterior) -> Diagnosis:
    """Looks for weight degeneracy.

    Args:
        posterior: the result of a run.

    Returns:
        The numbers, and findings with what to try.
    """
    particles = posterior.log_weights.shape[1]
    relative = posterior.ess / particles
    chain, step = np.unravel_index(np.argmin(relative), relative.shape)
    several = posterior.log_evidence.size > 1 and posterior.weighted
    numbers = {
        "min_ess": float(relative[chain, step]),
        "min_ess_step": int(step),
        "final_ess": float(posterior.ess[:, -1].min()),
        "founders": int(posterior.num_founders[:, -1].min()),
        "largest_weight": float(np.exp(posterior.log_weights.max())),
        "pareto_k": max(pareto_shape(row) for row in posterior.log_weights),
        "evidence_spread": float(np.std(posterior.log_evidence, ddof=1)) if several else np.nan,
        "evidence_error": _evidence_error(posterior),
    }
    if not posterior.weighted:
        finding = (
            "weights were off: the draws are those of a heuristic sampler, not of the posterior,"
            " and there is no evidence; run with weighted=True to see how far off they are"
        )
        return Diagnosis(**numbers, findings=(finding,))
    return Diagnosis(**numbers, findings=tuple(_findings(posterior, numbers, particles)))


def _evidence_error(posterior: Posterior) -> float:
    """See `Diagnosis`."""
    if not posterior.weighted or posterior.num_founders[:, -1].min() < _FEW_FOUNDERS:
        return float("nan")
    record = (posterior.log_weights, posterior.founders, posterior.resampled)
    variances = np.asarray(evidence_variance(*map(jnp.asarray, record)))
    return float(np.sqrt(variances.max())) if variances.min() >= 0.0 else float("nan")


def _findings(posterior: Posterior, numbers: dict, particles: int):
    step = numbers["min_ess_step"]
    if numbers["min_ess"] < _LOW_ESS:
        yield (
            f"the ESS fell to {numbers['min_ess']:.1%} at step {step} (log-SNR"
            f" {posterior.log_snr[step]:.1f}): the proposal misses the target there; try more"
            " steps, more particles, or another proposal: a better informed one (MomentMatched,"
            " Twisted), or where x has few dimensions Bootstrap"
        )
    before = np.where(posterior.resampled[:, -1], particles, posterior.ess[:, -2])
    last = posterior.ess[:, -1] / before
    if last.min() < _COLLAPSE:
        yield (
            f"the last step cut the ESS to {last.min():.1%} of what it was: the likelihood is"
            " sharper than the last twist; try more steps, a grid that ends at lower noise, or"
            " check that the noise of the observation is not understated"
        )
    if numbers["founders"] < min(_FEW_FOUNDERS, particles):
        yield (
            f"only {numbers['founders']} founders survive: the draws share their early history, so"
            " modes decided at high noise may be missing; try more particles or chains, and"
            " proposals.Rejuvenated to move copies apart"
        )
    if numbers["largest_weight"] > _HEAVY:
        yield (
            f"one particle carries {numbers['largest_weight']:.0%} of a chain's weight; averages"
            " rest on few particles: try more of them"
        )
    if numbers["pareto_k"] > _BAD_K:
        yield (
            f"Pareto k-hat is {numbers['pareto_k']:.2f} (above {_BAD_K}): weighted averages are"
            " unreliable; try a better informed proposal or more particles"
        )
    if numbers["evidence_spread"] > _SPREAD:
        yield (
            f"log evidence differs between chains by {numbers['evidence_spread']:.1f} nat"
            " (standard deviation): pooled results rest on the best chains; try more particles,"
            " or where that does not help another proposal"
        )
