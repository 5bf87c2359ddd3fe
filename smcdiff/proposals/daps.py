"""DAPS: decoupled annealing posterior sampling (Zhang et al. 2024)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.diffusion.laws.substituted import AlongDirections
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals._singular_draw import SingularDraw
from smcdiff.twists._singular import SingularSystem


class DAPS(SingularDraw):
    """Draw a clean x_0 given x_t and y, then noise it to the next level.

    x_0 given x_t is taken for N(m(x_t), r_t^2 I), r_t^2 the prior's ``average_spread`` (at low
    noise sigma_t^2 / alpha_t^2, the paper's choice; at high noise the paper's would exceed the
    data's own variance), so that with a linear-Gaussian observation the draw given y is exact and
    needs none of the paper's Langevin steps (Zhang et al. 2024, algorithm 1 and eq. 6); m stands
    for their few-step ODE solution. Since x_s forgets x_t but for m(x_t), early errors are undone.

    Heuristic with weights off. With weights on, as for `DDRM`, the draws are far wider than a fine
    grid's reverse steps: a coarse grid and many particles.

    Cost: one network evaluation per particle and step; one decomposition of the operator per run.

    Attributes:
        twist: by default `twists.NoisedObservation`.
    """

    def first_law(self, model: ReverseModel, system: SingularSystem) -> AlongDirections:
        """N(0, sigma_T^2 I)."""
        sigma = model.first.sigma
        scales = jnp.full_like(system.values, sigma)
        return AlongDirections(jnp.zeros((model.size,)), system.directions, scales, sigma)

    def next_law(
        self,
        model: ReverseModel,
        system: SingularSystem,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
        s: Level,
    ) -> AlongDirections:
        """A clean draw given y, noised to s."""
        spread = model.problem.prior.average_spread(t)
        shrink = 1.0 + spread * system.values**2
        mean = denoised + system.adjoint(spread * system.misfit(denoised) / shrink)
        scales = jnp.sqrt(s.alpha**2 * spread / shrink + s.sigma**2)
        outer = jnp.sqrt(s.alpha**2 * spread + s.sigma**2)
        return AlongDirections(s.alpha * mean, system.directions, scales, outer)
