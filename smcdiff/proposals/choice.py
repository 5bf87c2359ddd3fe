"""Choosing a proposal from the structure of the problem."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.errors import NO_DERIVATIVE
from smcdiff.priors import Prior
from smcdiff.problem import Problem
from smcdiff.proposals.base import Proposal
from smcdiff.proposals.bootstrap import Bootstrap
from smcdiff.proposals.conditioned import LanczosMomentMatched, MCGDiff, MomentMatched
from smcdiff.proposals.paths import FPS
from smcdiff.proposals.twisted import KrylovMomentMatched, Twisted
from smcdiff.proposals.twisted_path import TwistedPath
from smcdiff.twists import Krylov
from smcdiff.twists import MomentMatched as MomentMatchedTwist
from smcdiff.twists._singular import can_decompose

_FEW_OBSERVATIONS = 16
"""Up to here d_y network VJPs per step cost less than the particles that they save."""


@jax.jit
def _slope(prior: Prior, x: Float[Array, "*event"]) -> Float[Array, "*event"]:
    """Of the denoiser, along x."""
    t = prior.schedule.noisiest.time
    return jax.jvp(lambda x: prior.denoise(x, t), (x,), (x,))[1]


def is_differentiable(prior: Prior) -> bool:
    """Whether the denoiser has a derivative; traced once for each prior, and never run."""
    x = jax.ShapeDtypeStruct(prior.event_shape, jnp.result_type(float))
    try:
        _slope.eval_shape(prior, x)
    except NO_DERIVATIVE:
        return False
    return True


def _has_gradient(problem: Problem) -> bool:
    """Whether the likelihood has a gradient that is finite and not zero at some probe point."""
    points = problem.prior.probe_points(4)
    try:
        gradients = np.asarray(_gradients(problem, points))
    except NO_DERIVATIVE:
        return False
    gradients = gradients.reshape(len(points), -1)
    usable = np.all(np.isfinite(gradients), axis=1) & np.any(gradients != 0.0, axis=1)
    return bool(np.any(usable))


@jax.jit  # one compilation, where eager costs one an operation
def _gradients(problem: Problem, points: Float[Array, " n *event"]) -> Float[Array, " n *event"]:
    """The gradient of the log likelihood at some points."""
    return jax.vmap(jax.grad(lambda x: problem.log_likelihood(x)))(points)


def choose(problem: Problem) -> tuple[Proposal, str]:
    """The proposal for a problem, and one sentence saying why.

    Args:
        problem: the NumPyro model, read.

    Returns:
        The proposal and the reason.
    """
    size = problem.num_observations
    if problem.is_noise_free:
        # MCGDiff's log evidence mostly varies 2 to 6 times as much (25 components, d = 8 and 80).
        reason = f"site '{problem.observed_sites[0]}' is observed without noise (Delta)"
        return FPS(), f"{reason}, to which FPS holds every particle"
    exact = problem.prior.has_exact_denoiser
    if problem.varies:
        return _choose_for_each_particle(problem)
    limit = MomentMatchedTwist().max_observations if exact else _FEW_OBSERVATIONS
    if not is_differentiable(problem.prior):
        reason = "the denoiser has no derivative"
        if problem.is_linear and can_decompose(problem):
            return MCGDiff(), f"{reason}, and the observation is linear-Gaussian"
        return Bootstrap(), reason
    if problem.is_linear and size <= limit:
        return MomentMatched(), f"the observation is linear-Gaussian with {size} entries"
    if problem.is_linear:
        return _choose_for_many(problem, limit)
    if _has_gradient(problem):
        return Twisted(), "the observation is not linear-Gaussian, but differentiable"
    return Bootstrap(), "the likelihood has no usable gradient"


def _choose_for_many(problem: Problem, limit: int) -> tuple[Proposal, str]:
    """Of a linear-Gaussian observation with more entries than `MomentMatched` takes."""
    reason = (
        f"the observation is linear-Gaussian, and {problem.num_observations} entries are too many"
        f" for MomentMatched ({limit} at most)"
    )
    if not problem.prior.has_exact_denoiser:
        if can_decompose(problem):
            return TwistedPath(), f"{reason}, and the prior's denoiser is not exact"
        return Twisted(), f"{reason} or for TwistedPath to decompose"
    # Its pullbacks cost next to nothing, and its covariances are exact.
    if can_decompose(problem):
        return LanczosMomentMatched(), reason
    return KrylovMomentMatched(twist=Krylov(floor=0.0)), f"{reason} or for Lanczos to decompose"


def _choose_for_each_particle(problem: Problem) -> tuple[Proposal, str]:
    """Where particles have unknown parameters, or sites of earlier stages, of their own.

    Each value that is tried costs `MomentMatched` its pullbacks again, which are cheap for exact
    denoisers alone; `Twisted` needs the denoised mean that the particle has.
    """
    reason = f"{list(problem.parameter_names)} are unknown, and the observation is"
    if problem.held is not None:
        names = list(problem.held.layout.names)
        reason = f"site '{problem.site}' depends on {names}, and the observation is"
    if not is_differentiable(problem.prior):
        return Bootstrap(), "the denoiser has no derivative"
    few = problem.num_observations <= MomentMatchedTwist().max_observations
    if problem.is_linear and few and problem.prior.has_exact_denoiser:
        return MomentMatched(), f"{reason} linear-Gaussian given them"
    if _has_gradient(problem):
        return Twisted(), f"{reason} differentiable"
    return Bootstrap(), "the likelihood has no usable gradient"
