"""Twisted diffusion sampling (Wu et al. 2023)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.linear import log_normaliser, near_solution, row_norms
from smcdiff.schedules import Level


class Widening(NamedTuple):
    """Squared row norms of the whitened operator, and the likelihood's constant."""

    row_norms: Float[Array, " m"]
    log_normaliser: Float[Array, ""]


class LocalWidening(NamedTuple):
    """Marks a twist that is widened by the slope of a nonlinear mean where it is evaluated."""


_FEW_OBSERVATIONS = 64
"""Up to here the d_y gradients of the mean (not of the network) cost little."""


def widening(model: ReverseModel) -> Widening | LocalWidening | None:
    """What a widened twist needs; None where it stays plain: not Gaussian, or too large."""
    problem = model.problem
    if not problem.linear:
        few = problem.num_observations <= _FEW_OBSERVATIONS
        return LocalWidening() if problem.gaussian and few else None
    norms = row_norms(model)
    point = near_solution(model, lambda r: r / jnp.where(norms > 0, norms, 1.0))
    return Widening(norms, log_normaliser(model, point))


def log_twist(
    model: ReverseModel,
    wide: Widening | LocalWidening | None,
    denoised: Float[Array, " d"],
    t: Level,
):
    """Log p(y given m(x_t)), its noise widened by the spread of x_0 given x_t, or plain."""
    if wide is None:
        return model.log_likelihood(denoised)
    spread = model.problem.prior.spread(t)
    if isinstance(wide, LocalWidening):
        return _log_local_average(model, denoised, spread)
    variances = 1.0 + spread * wide.row_norms
    terms = model.residual(denoised) ** 2 / variances + jnp.log(variances)
    return wide.log_normaliser - 0.5 * jnp.sum(terms)


def _log_local_average(model: ReverseModel, denoised: Float[Array, " d"], spread):
    """The widened twist of a Gaussian observation whose mean is linearised at the denoised mean."""
    residual = model.problem.whitened(model.event(denoised))
    # Held fixed in gradients, as in Gauss-Newton: no second derivatives of the mean.
    slopes = jax.jacrev(lambda x: model.problem.whitened(model.event(x)))(denoised)
    variances = 1.0 + spread * jax.lax.stop_gradient(jnp.sum(slopes**2, axis=1))
    terms = residual**2 / variances + jnp.log(variances) - residual**2
    return model.log_likelihood(denoised) - 0.5 * jnp.sum(terms)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Twisted(Proposal):
    """Twisted diffusion sampler, TDS (Wu et al. 2023, algorithm 1).

    The twist is psi_t = p(y given m(x_t)); the reverse kernel is tilted by exp(x_s . grad log
    psi_t(x_t)), which moves the mean of a Gaussian kernel by its variance times the gradient.
    Consistent. Where the observation is linear-Gaussian the noise of the twist is widened by the
    spread of x_0 given x_t, ``sigma_y^2 + spread_t |a_i|^2`` for row a_i of the operator: the plain
    twist (``widen=False``) is far too sure at high noise. For a Gaussian observation of a nonlinear
    mean, up to 64 entries, a_i is the mean's gradient at m(x_t). Other observations have the plain
    twist.

    Cost: one network evaluation and one vector-Jacobian product a particle and step.

    Attributes:
        widen: widen the twist of Gaussian observations.
    """

    widen: bool = dataclasses.field(default=True, metadata={"static": True})

    def prepare(self, key, model):
        """The constants of the widened twist, or None for the plain one."""
        return widening(model) if self.widen else None

    def guide(self, model, shared, x, step):
        """The twist, with its gradient and the denoised mean from the same evaluation."""
        t = model.level(step)

        def twist(x):
            denoised = model.denoise(x, t)
            return log_twist(model, shared, denoised, t), denoised

        (value, denoised), gradient = jax.value_and_grad(twist, has_aux=True)(x)
        return value, (denoised, gradient)

    def law(self, model, shared, x, guide, step):
        """The tilted reverse kernel."""
        denoised, gradient = guide
        return model.transition(x, denoised, step).tilted(gradient)
