"""From what the filter returns to what the user gets: a `Posterior`, or an error that says why."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from smcdiff._version import __version__
from smcdiff.errors import SamplingError
from smcdiff.problem import ReverseModel
from smcdiff.proposals import Bootstrap, Proposal
from smcdiff.results.posterior import Posterior
from smcdiff.sampler import _faults as faults
from smcdiff.sampler._settings import Settings, brief
from smcdiff.smc import FilterResult


class Outcome(NamedTuple):
    """The chains of one problem after their last step, on the host.

    Attributes:
        result: of the filter; particles are the flat events of each stage.
        computed: deterministic sites of the model, name -> (C, N, *shape).
        log_likelihood: observed sites, name -> (C, N, *batch shape).
        prior_widths: how far the particles lie from the prior's centre; see `Prior.widths`.
    """

    result: FilterResult
    computed: dict[str, Array]
    log_likelihood: dict[str, Array]
    prior_widths: Float[Array, "c n"]


class Provenance(NamedTuple):
    """How a run was made.

    Attributes:
        proposal: the sampler.
        reason: why it is this one.
        move: how the unknown parameters were moved, where there are some.
        seconds: wall time.
    """

    proposal: Proposal
    reason: str
    move: str | None
    seconds: float


def to_posterior(
    outcome: Outcome, model: ReverseModel, settings: Settings, made: Provenance
) -> Posterior:
    """The posterior of one problem.

    Raises:
        SamplingError: a chain that failed, or samples that are not finite.
    """
    problem, result = model.problem, outcome.result
    alike = settings.weighted and made.proposal.counts_chains_alike(model)
    _check_finished(result, model, made.proposal)
    samples = _by_site(model, result.particles)
    if not all(np.all(np.isfinite(values)) for values in samples.values()):
        levels = range(faults.num_levels(model))
        fault = faults.denoiser_fault(model, levels) or faults.likelihood_fault(problem)
        raise SamplingError(
            f"site '{problem.site}': samples are not finite although their weights are:"
            f" {fault or _astray(model, made.proposal)}"
        )
    # The filter's first step makes blank particles, and is none of the diffusion's.
    steps = {
        "ess": result.ess,
        "num_founders": result.num_founders,
        "log_evidence_increments": result.log_evidence_increments,
        "resampled": result.resampled,
    }
    ancestors = None if result.ancestors is None else np.asarray(result.ancestors)[:, 1:]
    return Posterior(
        samples={**samples, **_on_host(outcome.computed)},
        log_weights=np.asarray(result.log_weights),
        log_evidence=np.asarray(result.log_evidence),
        prior_widths=np.asarray(outcome.prior_widths),
        # Founders do not see how far a chain's evidence depends on the path that it has.
        log_evidence_se=np.where(alike, np.nan, np.asarray(result.log_evidence_se)),
        founders=np.asarray(result.founders),
        ancestors=ancestors,
        log_snr=np.asarray(model.all_levels.log_snr),
        pointwise_log_likelihood=_on_host(outcome.log_likelihood),
        observed=_on_host(problem.observe().values),
        weighted=settings.weighted,
        chains_alike=alike,
        dims=dict(problem.named_axes),
        attrs=_attributes(model, settings, made),
        **{name: np.asarray(values)[:, 1:] for name, values in steps.items()},
    )


def _by_site(model: ReverseModel, particles: tuple[Array, ...]) -> dict[str, np.ndarray]:
    """The values of all diffusion sites, of each chain and particle."""
    pairs = zip(model.stages, particles, strict=True)
    parts = [stage.problem.layout.split(np.asarray(x), 2) for stage, x in pairs]
    return {site: values for part in parts for site, values in part.items()}


def _on_host(arrays: dict[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in arrays.items()}


def _attributes(model: ReverseModel, settings: Settings, made: Provenance) -> dict[str, Any]:
    """How the run was made, in words."""
    threshold = settings.ess_threshold
    moved = {} if made.move is None else {"move": made.move}
    return {
        "proposal": brief(made.proposal),
        "proposal_reason": made.reason,
        **moved,
        "kernel": brief(model.kernel),
        "grid": brief(settings.grid_for(model.problem.prior, made.proposal)),
        "num_steps": settings.num_steps,
        "ess_threshold": "by log-SNR" if callable(threshold) else threshold,
        "resampling": getattr(settings.resampling, "__name__", repr(settings.resampling)),
        "seconds": made.seconds,
        "smcdiff_version": __version__,
        "jax_version": jax.__version__,
    }


def _check_finished(result: FilterResult, model: ReverseModel, proposal: Proposal) -> None:
    """Raises ``SamplingError`` where a chain failed; names the step, and what is to blame."""
    failed = np.asarray(result.failed_step)
    if np.all(failed < 0):
        return
    first = np.argmin(np.where(failed < 0, np.iinfo(failed.dtype).max, failed))
    increment = float(result.log_evidence_increments[first, failed[first]])
    step = max(int(failed[first]) - 1, 0)  # of the diffusion
    where = (
        f"site '{model.problem.site}': at step {step} of {faults.num_levels(model) - 1}"
        f" (noise level {faults.noise_of(model, step)})"
    )
    # A step draws by the level that it leaves, and weighs by the one that it reaches.
    fault = faults.denoiser_fault(model, (step - 1, step))
    # A weight of zero is no likelihood that is NaN.
    if fault is None and not np.isneginf(increment):
        fault = faults.likelihood_fault(model.problem)
        if fault is None and not isinstance(proposal, Bootstrap):
            fault = faults.gradient_fault(model.problem)
    if fault is not None:
        raise SamplingError(f"{where} {fault}; more particles do not help")
    if not all(np.all(np.isfinite(x[first])) for x in result.particles):
        raise SamplingError(f"{where} particles had gone to infinity: {_astray(model, proposal)}")
    if not np.isneginf(increment):
        raise SamplingError(
            f"{where} a weight was NaN or infinite. The likelihood is finite or zero at"
            f" {faults.NUM_POINTS} points of the prior's scale, so look at the denoiser, at its"
            " gradient, and at the likelihood for x farther out:"
            ' jax.config.update("jax_debug_nans", True) shows where. If particles were driven far'
            f" away, {faults.cures(proposal, model)}"
        )
    chains = f"{int(np.sum(failed >= 0))} of {failed.size} chains"
    why = faults.impossible_data(model.problem) or "the observation is far outside the prior"
    raise SamplingError(
        f"{where} no particle of {chains} had a positive weight; {why}, or the noise too small: try"
        " more particles, a larger noise, or another proposal"
    )


def _astray(model: ReverseModel, proposal: Proposal) -> str:
    """Why particles may have left every scale of the prior, and what helps."""
    denoiser = "the denoiser returns NaN or infinity for some x"
    if isinstance(proposal, Bootstrap):
        return f"{denoiser} far from the data; {faults.cures(proposal, model)}"
    return f"{denoiser}, or guidance is unstable; {faults.cures(proposal, model)}"
