"""DAPS: decoupled annealing posterior sampling (Zhang et al. 2024)."""

from __future__ import annotations

import jax.numpy as jnp

from smcdiff.proposals.base import ReverseModel
from smcdiff.proposals.singular import (
    SingularDraw,
    SingularGaussian,
    SingularSystem,
    require_singular,
)


class DAPS(SingularDraw):
    """Draw a clean x_0 given x_t and y, then noise it to the next level.

    x_0 given x_t is taken for N(m(x_t), r_t^2 I), r_t^2 the prior's ``average_spread`` (at low
    noise sigma_t^2 / alpha_t^2, the paper's choice; at high noise the paper's would exceed the
    data's own variance), so that with a linear-Gaussian observation the draw given y is exact and
    needs none of the paper's Langevin steps (Zhang et al. 2024, algorithm 1 and eq. 6); m stands
    for their few-step ODE solution. Since x_s forgets x_t but for m(x_t), early errors are undone.

    Heuristic with weights off. With weights on, as for `DDRM`, the draws are far wider than a fine
    grid's reverse steps: a coarse grid and many particles.

    Cost: one network evaluation a particle and step; one decomposition of the operator a run.
    """

    def check(self, model):
        """Raises ``InputError`` unless the observation is linear-Gaussian."""
        require_singular(model, "DAPS")

    def _first(self, model, system):
        level = model.level(0)
        scale = jnp.full_like(system.values, level.sigma)
        return SingularGaussian(jnp.zeros((model.size,)), scale, level.sigma)

    def _next(self, model: ReverseModel, system: SingularSystem, x, denoised, step):
        s = model.level(step + 1)
        spread = model.problem.prior.average_spread(model.level(step))
        shrink = 1.0 + spread * system.values**2
        misfit = system.observed - system.project(denoised)
        mean = denoised + system.right.T @ (spread * system.values * misfit / shrink)
        scales = jnp.sqrt(s.alpha**2 * spread / shrink + s.sigma**2)
        outer = jnp.sqrt(s.alpha**2 * spread + s.sigma**2)
        return SingularGaussian(s.alpha * mean, scales, outer)
