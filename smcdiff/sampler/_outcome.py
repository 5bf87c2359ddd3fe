"""From what the filter returns to what the user gets: a `Posterior`, or an error that says why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from smcdiff._version import __version__
from smcdiff.errors import SamplingError
from smcdiff.problem import ReverseModel
from smcdiff.proposals import Proposal
from smcdiff.results._diagnosis import CALMER
from smcdiff.results.posterior import Posterior
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
    _check_finished(result, model)
    samples = _by_site(model, result.particles)
    if not all(np.all(np.isfinite(values)) for values in samples.values()):
        raise SamplingError(
            f"site '{problem.site}': samples are not finite although their weights are:"
            f" {_blamed(model, range(_num_levels(model))) or f'guidance is unstable; {CALMER}'}"
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


def _num_levels(model: ReverseModel) -> int:
    return sum(stage.num_steps + 1 for stage in model.stages)


def _at(model: ReverseModel, index: int) -> tuple[ReverseModel, int]:
    """The stage of a level among those of all stages, and its place there."""
    for stage in model.before:
        if index <= stage.num_steps:
            return stage, index
        index -= stage.num_steps + 1
    return model, index


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


def _check_finished(result: FilterResult, model: ReverseModel) -> None:
    """Raises ``SamplingError`` where a chain failed; names the step, and what is to blame."""
    failed = np.asarray(result.failed_step)
    if np.all(failed < 0):
        return
    first = np.argmin(np.where(failed < 0, np.iinfo(failed.dtype).max, failed))
    increment = float(result.log_evidence_increments[first, failed[first]])
    step = max(int(failed[first]) - 1, 0)  # of the diffusion
    name = f"site '{model.problem.site}'"
    where = (
        f"{name}: at step {step} of {_num_levels(model) - 1} (noise level {_noise(model, step)})"
    )
    # A step draws by the level that it leaves, and weighs by the one that it reaches.
    blamed = _blamed(model, (step - 1, step))
    if blamed is not None:
        raise SamplingError(f"{where} {blamed}; more particles do not help")
    if not all(np.all(np.isfinite(x[first])) for x in result.particles):
        raise SamplingError(
            f"{where} particles had gone to infinity: the denoiser returns NaN or infinity for some"
            f" x, or guidance is unstable; {CALMER}"
        )
    if not np.isneginf(increment):
        raise SamplingError(
            f"{where} a weight was NaN or infinite: denoiser, likelihood or a gradient of theirs is"
            ' so for some x, as jax.config.update("jax_debug_nans", True) shows; where guidance has'
            f" driven x away, {CALMER}"
        )
    raise SamplingError(
        f"{where} no particle of {int(np.sum(failed >= 0))} of {failed.size} chains had a positive"
        " weight; the observation is far outside the prior, or the noise too small: try more"
        " particles, a larger noise, or another proposal"
    )


def _noise(model: ReverseModel, step: int) -> str:
    stage, place = _at(model, step)
    return f"sigma = {float(stage.level(place).sigma):.3g}"


def _blamed(model: ReverseModel, indices: Iterable[int]) -> str | None:
    """Which part of a model is NaN, of its levels at some, at points of the prior's scale.

    Args:
        model: the reverse model.
        indices: of levels; those that are none, and the clean one, are passed over.

    Returns:
        What it returned and where to look; None if it is neither the denoiser nor the likelihood.
    """
    for index in indices:
        stage, place = _at(model, max(index, 0))
        if 0 <= index and place < stage.num_steps and not bool(_denoiser_is_finite(stage, place)):
            time = float(stage.level(place).time)
            return (
                f"the denoiser returned NaN or infinity (at {_noise(model, index)}): look at"
                f" prior.denoise(x, {time:.4g})"
            )
    if not bool(_likelihood_is_a_number(model)):
        return "the likelihood is NaN: look at the model's log density"
    return None


@jax.jit
def _denoiser_is_finite(model: ReverseModel, index: Int[Array, ""] | int) -> Bool[Array, ""]:
    """Whether the denoised means of noised points are finite."""
    level, points = model.level(index), model.problem.prior.typical_points(8)
    noise = jax.random.normal(jax.random.key(2), points.shape)
    noised = (level.alpha * points + level.sigma * noise).reshape(8, model.size)
    return jnp.all(jnp.isfinite(jax.vmap(lambda x: model.denoise(x, level))(noised)))


@jax.jit
def _likelihood_is_a_number(model: ReverseModel) -> Bool[Array, ""]:
    """Whether no log likelihood is NaN; it may be infinite."""
    points = model.problem.prior.typical_points(8)
    return ~jnp.any(jnp.isnan(jax.vmap(model.problem.log_likelihood)(points)))
