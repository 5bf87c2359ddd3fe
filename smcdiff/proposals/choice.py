"""Choosing a proposal from the structure of the problem."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from smcdiff.priors.analytic import AnalyticPrior
from smcdiff.problem import Problem
from smcdiff.problem.linearity import probe_points
from smcdiff.proposals.base import Proposal
from smcdiff.proposals.bootstrap import Bootstrap
from smcdiff.proposals.fps import FPS
from smcdiff.proposals.krylov import KrylovMomentMatched
from smcdiff.proposals.lanczos import LanczosMomentMatched
from smcdiff.proposals.moment_matched import MomentMatched
from smcdiff.proposals.replacement import SMCDiff
from smcdiff.proposals.singular import can_decompose
from smcdiff.proposals.twisted import Twisted

_FEW_OBSERVATIONS = 16
"""Up to here d_y network VJPs a step cost less than the particles that they save."""


def _has_gradient(problem: Problem) -> bool:
    """Whether the likelihood has a gradient that is finite and not zero at some probe point."""
    points = probe_points(problem.prior, 4)
    try:
        gradients = jax.vmap(jax.grad(problem.log_likelihood))(points)
    except (TypeError, ValueError, NotImplementedError):  # a callback, say, has no derivative
        return False
    gradients = gradients.reshape(len(points), -1)
    usable = jnp.all(jnp.isfinite(gradients), axis=1) & jnp.any(gradients != 0.0, axis=1)
    return bool(jnp.any(usable))


def choose(problem: Problem) -> tuple[Proposal, str]:
    """The proposal for a problem, and one sentence saying why.

    Args:
        problem: the NumPyro model, read.

    Returns:
        The proposal and the reason.
    """
    size = problem.num_observations
    if problem.noise_free:
        reason = f"site '{problem.observed_sites[0]}' is observed without noise (Delta)"
        if not can_decompose(problem):
            return SMCDiff(), f"{reason}, with {size} entries too many for FPS to decompose"
        # MCGDiff's log evidence mostly varies 2 to 6 times as much (25 components, d = 8 and 80).
        return FPS(), f"{reason}, to which FPS holds every particle"
    analytic = isinstance(problem.prior, AnalyticPrior)
    limit = MomentMatched().max_observations if analytic else _FEW_OBSERVATIONS
    if problem.linear and size <= limit:
        return MomentMatched(), f"the observation is linear-Gaussian with {size} entries"
    if problem.linear:
        reason = (
            f"the observation is linear-Gaussian, and {size} entries are too many for MomentMatched"
            f" ({limit} at most)"
        )
        # Its pullbacks cost next to nothing, and its covariances are exact.
        if analytic and can_decompose(problem):
            return LanczosMomentMatched(), reason
        if analytic:
            return KrylovMomentMatched(floor=0.0), f"{reason} or for Lanczos to decompose"
        return (
            Twisted(),
            f"{reason}; KrylovMomentMatched often does better with 3 VJPs a step instead of 1",
        )
    if _has_gradient(problem):
        return Twisted(), "the observation is not linear-Gaussian, but differentiable"
    return Bootstrap(), "the likelihood has no usable gradient"
