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


def widening(model: ReverseModel) -> Widening | None:
    """What a widened twist needs; None where the observation is not linear-Gaussian."""
    if not model.problem.linear:
        return None
    norms = row_norms(model)
    point = near_solution(model, lambda r: r / jnp.where(norms > 0, norms, 1.0))
    return Widening(norms, log_normaliser(model, point))


def log_twist(model: ReverseModel, wide: Widening | None, denoised: Float[Array, " d"], t: Level):
    """Log p(y given m(x_t)), its noise widened by the spread of x_0 given x_t, or plain."""
    if wide is None:
        return model.log_likelihood(denoised)
    variances = 1.0 + model.problem.prior.spread(t) * wide.row_norms
    terms = model.residual(denoised) ** 2 / variances + jnp.log(variances)
    return wide.log_normaliser - 0.5 * jnp.sum(terms)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Twisted(Proposal):
    """Twisted diffusion sampler, TDS (Wu et al. 2023, algorithm 1).

    The twist is psi_t = p(y given m(x_t)); the reverse kernel is tilted by exp(x_s . grad log
    psi_t(x_t)), which moves the mean of a Gaussian kernel by its variance times the gradient.
    Consistent. Where the observation is linear-Gaussian the noise of the twist is widened by the
    spread of x_0 given x_t, ``sigma_y^2 + spread_t |a_i|^2`` for row a_i of the operator: the plain
    twist (``widen=False``) is far too sure at high noise. Nonlinear and non-Gaussian observations
    use the plain twist.

    Cost: one network evaluation and one vector-Jacobian product a particle and step.

    Attributes:
        widen: widen the twist of linear-Gaussian observations.
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
