"""What is at fault where a run has failed: the denoiser, the likelihood or its gradient; and cures.

Asked after the failure, and cheap: the denoiser is evaluated at a few points of two levels, and the
likelihood, without the network, at points of the prior's scale and draws of the parameters' prior.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from smcdiff.errors import NO_DERIVATIVE, InputError
from smcdiff.problem import Problem, ReverseModel
from smcdiff.proposals import (
    DPS,
    Bootstrap,
    ClassifierFree,
    ClassifierGuidance,
    MomentMatched,
    PiGDM,
    Proposal,
    check_fits,
)

NUM_POINTS = 256
"""At which the likelihood is asked for: what fails at 2 % of them is missed once in 170 times."""
_AT_ONCE = 32
_SHOWN = 8
"""Entries up to which a value is written out."""
_SCALES = {DPS: "scale", ClassifierGuidance: "strength", ClassifierFree: "strength"}
"""Of guidance that can be made smaller, its setting."""


def num_levels(model: ReverseModel) -> int:
    """Levels of all stages."""
    return sum(stage.num_steps + 1 for stage in model.stages)


def noise_of(model: ReverseModel, index: int) -> str:
    """The noise of a level among those of all stages, in words."""
    stage, place = _at(model, index)
    return f"sigma = {float(stage.level(place).sigma):.3g}"


def denoiser_fault(model: ReverseModel, indices: Iterable[int]) -> str | None:
    """Whether the denoiser returns what is not finite, at points of the prior's scale.

    Args:
        model: the reverse model.
        indices: of levels; those that are none, and the clean one, are passed over.

    Returns:
        What it returned and where to look; None where it is finite.
    """
    for index in indices:
        stage, place = _at(model, max(index, 0))
        if 0 <= index and place < stage.num_steps and not bool(_denoiser_is_finite(stage, place)):
            time = float(stage.level(place).time)
            return (
                f"the denoiser returned NaN or infinity (at {noise_of(model, index)}): look at"
                f" prior.denoise(x, {time:.4g})"
            )
    return None


def likelihood_fault(problem: Problem) -> str | None:
    """Whether some log likelihood is NaN or +inf; -inf is none, but a weight of zero.

    Args:
        problem: the problem; sites of earlier stages stay where it holds them.

    Returns:
        The observed site, how often it happens, and values at which it does; None where none is.
    """
    points, parameters, terms = jax.device_get(_terms(problem))
    for name, term in terms.items():
        for what, is_so in (("NaN", np.isnan), ("+inf", np.isposinf)):
            found = np.any(is_so(term).reshape(NUM_POINTS, -1), axis=1)
            if found.any():
                return (
                    f"the log likelihood of site '{name}' is {what} {_often(found)}, for example"
                    f" at {_values(problem, int(np.argmax(found)), points, parameters)}: look at"
                    " the log density there, and make it finite, or keep the parameters away by"
                    " their priors"
                )
    return None


def gradient_fault(problem: Problem) -> str | None:
    """Whether the gradient of a finite log likelihood is not finite; as `likelihood_fault`."""
    try:
        points, parameters, found = jax.device_get(_has_bad_gradient(problem))
    except NO_DERIVATIVE:
        return None
    if not found.any():
        return None
    return (
        f"the log likelihood is finite and its gradient is not {_often(found)}, for example at"
        f" {_values(problem, int(np.argmax(found)), points, parameters)}: a jnp.where hides a NaN"
        " from the value and not from the gradient, so put one around the argument too; or use"
        " proposals.Bootstrap(), which needs no gradient"
    )


def impossible_data(problem: Problem) -> str | None:
    """The observed site whose likelihood is zero at all points of the prior's scale; or None."""
    _, _, terms = jax.device_get(_terms(problem))
    for name, term in terms.items():
        if np.all(np.any(np.isneginf(term).reshape(NUM_POINTS, -1), axis=1)):
            return (
                f"the likelihood of site '{name}' is zero {_often(np.ones(NUM_POINTS, bool))}"
                " (check the support of its distribution)"
            )
    return None


def cures(proposal: Proposal, model: ReverseModel) -> str:
    """What helps where particles are driven away from the prior: what this run can do.

    Args:
        proposal: of the run.
        model: the reverse model; only proposals that fit it are named.
    """
    proposal = getattr(proposal, "proposal", proposal)  # in `Rejuvenated`
    setting = next((s for kind, s in _SCALES.items() if isinstance(proposal, kind)), None)
    found = [] if setting is None else [f"a smaller {setting} of the guidance"]
    prior = model.problem.prior
    if not prior.has_exact_denoiser and prior.threshold is None:
        found.append("a threshold of the prior (smcdiff.thresholding)")
    others = [PiGDM(), MomentMatched()] if model.problem.is_linear else []
    others = [o for o in others if type(o) is not type(proposal) and _fits(o, model)]
    names = [f"{type(other).__name__}()" for other in others]
    if names:
        found.append(f"a proposal whose step knows the noise, {' or '.join(names)}")
    elif not isinstance(proposal, Bootstrap) and _fits(Bootstrap(), model):
        found.append("proposals.Bootstrap(), which nothing drives, with more particles")
    return f"try {_listed(found)}" if found else "try more steps"


def _fits(proposal: Proposal, model: ReverseModel) -> bool:
    try:
        check_fits(proposal, model)
    except InputError:
        return False
    return True


def _listed(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)}{', or ' if len(first) > 1 else ' or '}{last}" if first else last


def _often(found: Bool[np.ndarray, " n"]) -> str:
    return f"at {found.mean():.1%} of {len(found)} points of the prior's scale"


def _values(
    problem: Problem, index: int, points: np.ndarray, parameters: dict[str, np.ndarray]
) -> str:
    """Parameters and x of one point, those that are short."""
    shown = {name: values[index] for name, values in parameters.items()}
    shown |= problem.layout.split(points[index])
    short = [
        f"{name} = {np.array2string(np.asarray(value), precision=3, separator=', ')}"
        for name, value in shown.items() if np.size(value) <= _SHOWN
    ]  # fmt: skip
    if not problem.layout.joins_sites and problem.size > _SHOWN:
        short.append(f"{problem.site} = prior.typical_points({NUM_POINTS})[{index}]")
    return ", ".join(short) or f"the {index}-th of them"


def _at(model: ReverseModel, index: int) -> tuple[ReverseModel, int]:
    """The stage of a level among those of all stages, and its place there."""
    for stage in model.before:
        if index <= stage.num_steps:
            return stage, index
        index -= stage.num_steps + 1
    return model, index


@jax.jit
def _denoiser_is_finite(model: ReverseModel, index: Int[Array, ""] | int) -> Bool[Array, ""]:
    """Whether the denoised means of noised points are finite."""
    level, points = model.level(index), model.problem.prior.typical_points(8)
    noise = jax.random.normal(jax.random.key(2), points.shape)
    noised = (level.alpha * points + level.sigma * noise).reshape(8, model.size)
    return jnp.all(jnp.isfinite(jax.vmap(lambda x: model.denoise(x, level))(noised)))


def _drawn(problem: Problem, key: Key[Array, ""]) -> Problem:
    """The problem at a draw of its unknown parameters, where it has some."""
    return problem if problem.parameters is None else problem.at(problem.draw_parameters(key))


def _over_points(problem: Problem, function: Any) -> tuple[Float[Array, " n *event"], Any]:
    """The points, and a function of a problem at a draw of its parameters, and one point."""
    points = problem.prior.typical_points(NUM_POINTS)
    keys = jax.random.split(jax.random.key(4), NUM_POINTS)

    def at(pair: tuple[Key[Array, ""], Float[Array, "*event"]]) -> Any:
        own = _drawn(problem, pair[0])
        computed, terms = own.describe(pair[1])
        parameters = {name: computed[name] for name in own.parameter_names}
        return parameters, function(own, pair[1], terms)

    return points, jax.lax.map(at, (keys, points), batch_size=_AT_ONCE)


@jax.jit
def _terms(problem: Problem) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """Points, parameters, and the log likelihood of each observed site's entries."""
    points, (parameters, terms) = _over_points(problem, lambda own, x, terms: terms)
    return points, parameters, terms


@jax.jit
def _has_bad_gradient(problem: Problem) -> tuple[Array, dict[str, Array], Bool[Array, " n"]]:
    """Points, parameters, and whether the log likelihood is finite and its gradient is not."""

    def is_bad(own: Problem, x: Float[Array, "*event"], terms: Any) -> Bool[Array, ""]:
        def log_likelihood(x: Any, u: Any) -> Float[Array, ""]:
            return (own if u is None else own.at(u)).log_likelihood(x)

        u = None if own.parameters is None else own.parameters.values
        value, slopes = jax.value_and_grad(log_likelihood, argnums=(0, 1))(x, u)
        finite = [jnp.all(jnp.isfinite(slope)) for slope in jax.tree.leaves(slopes)]
        return jnp.isfinite(value) & ~jnp.all(jnp.stack(finite))

    points, (parameters, found) = _over_points(problem, is_bad)
    return points, parameters, found
