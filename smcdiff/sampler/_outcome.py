"""From what the filter returns to what the user gets: a `Posterior`, or an error that says why."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from smcdiff._version import __version__
from smcdiff.diffusion.kernels import Exact
from smcdiff.errors import SamplingError
from smcdiff.problem import ReverseModel
from smcdiff.proposals import Proposal
from smcdiff.results.posterior import Posterior
from smcdiff.sampler._settings import Settings
from smcdiff.smc import FilterResult


class Outcome(NamedTuple):
    """The chains of one problem after their last step, on the host.

    Attributes:
        result: of the filter of `SteeredDiffusion`; particles are flat events.
        computed: deterministic sites of the model, name -> (C, N, *shape).
        log_likelihood: observed sites, name -> (C, N, *batch shape).
    """

    result: FilterResult
    computed: dict[str, Array]
    log_likelihood: dict[str, Array]


class Provenance(NamedTuple):
    """How a run was made.

    Attributes:
        proposal: the sampler.
        reason: why it is this one.
        seconds: wall time.
    """

    proposal: Proposal
    reason: str
    seconds: float


def to_posterior(
    outcome: Outcome, model: ReverseModel, settings: Settings, made: Provenance
) -> Posterior:
    """The posterior of one problem.

    Raises:
        SamplingError: a chain that failed, or samples that are not finite.
    """
    problem, result = model.problem, outcome.result
    _check_finished(np.asarray(result.failed_step), model)
    chains, particles = result.log_weights.shape
    samples = np.asarray(result.particles).reshape(chains, particles, *problem.event_shape)
    if not np.all(np.isfinite(samples)):
        raise SamplingError(
            f"site '{problem.site}': samples are not finite although their weights are;"
            " the denoiser returned NaN or infinity"
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
        samples={problem.site: samples, **_on_host(outcome.computed)},
        log_weights=np.asarray(result.log_weights),
        log_evidence=np.asarray(result.log_evidence),
        log_evidence_se=_evidence_error(result, model, made.proposal),
        founders=np.asarray(result.founders),
        ancestors=ancestors,
        log_snr=np.asarray(model.levels.log_snr),
        pointwise_log_likelihood=_on_host(outcome.log_likelihood),
        observed=_on_host(problem.observe().values),
        weighted=settings.weighted,
        chains_alike=settings.weighted and made.proposal.counts_chains_alike(model),
        attrs=_attributes(model, settings, made),
        **{name: np.asarray(values)[:, 1:] for name, values in steps.items()},
    )


def _evidence_error(
    result: FilterResult, model: ReverseModel, proposal: Proposal
) -> Float[np.ndarray, " c"]:
    """Standard error of each chain's log evidence.

    Founders see what happens along a chain's path, and not how far its evidence depends on that
    path, as it does unless the kernel is the reverse of the forward process.
    """
    error = np.asarray(result.log_evidence_se)
    by_path = proposal.follows_path and not isinstance(model.kernel, Exact)
    return np.full_like(error, np.nan) if by_path else error


def _on_host(arrays: dict[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in arrays.items()}


def _attributes(model: ReverseModel, settings: Settings, made: Provenance) -> dict[str, Any]:
    """How the run was made, in words."""
    threshold = settings.ess_threshold
    return {
        "proposal": brief(made.proposal),
        "proposal_reason": made.reason,
        "kernel": brief(model.kernel),
        "grid": brief(settings.grid_for(model.problem.prior, made.proposal)),
        "num_steps": settings.num_steps,
        "ess_threshold": "by log-SNR" if callable(threshold) else threshold,
        "resampling": getattr(settings.resampling, "__name__", repr(settings.resampling)),
        "seconds": made.seconds,
        "smcdiff_version": __version__,
        "jax_version": jax.__version__,
    }


def brief(part: Any) -> str:
    """How an object is written; of one that holds a network's weights, its type alone."""
    text = repr(part)
    return text if len(text) <= 300 else f"{type(part).__name__}(...)"


def _check_finished(failed_step: Int[np.ndarray, " c"], model: ReverseModel) -> None:
    """Raises ``SamplingError`` where a chain failed, and names the step."""
    if np.all(failed_step < 0):
        return
    step = max(int(failed_step[failed_step >= 0].min()) - 1, 0)  # of the diffusion
    sigma = float(model.level(step).sigma)
    raise SamplingError(
        f"site '{model.problem.site}': at step {step} of {model.num_steps} (noise level sigma ="
        f" {sigma:.3g}) no particle of {int(np.sum(failed_step >= 0))} of"
        f" {failed_step.size} chains had a finite weight, or one had NaN; the observation is"
        " far outside the prior, the noise too small, or the likelihood or the denoiser NaN for"
        " some x: try more particles, a larger noise, or another proposal"
    )
