"""MCGDiff: Monte Carlo guided diffusion (Cardoso et al. 2023)."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp

from smcdiff.proposals.base import Proposal
from smcdiff.proposals.singular import (
    end_exactly,
    noised_observation,
    require_singular,
    singular_system,
)  # fmt: skip


class MCGDiff(Proposal):
    """Condition every reverse step on the observation, noised to the level of the step.

    In singular coordinates and as if the prior were flat, y observes x_t / alpha_t with noise
    1 + s^2 sigma_t^2 / alpha_t^2 (whitened); twist and draw use that Gaussian. As the noise of y
    goes to zero this is the published algorithm 1 (Cardoso et al. 2023, section 2, kappa = 0), and
    for an exact observation the last step draws the reverse kernel given A x_0 = y. With noise, the
    paper instead lets y stand for x_tau at the level tau whose noise is that of y, and leaves the
    reverse kernel alone below it, which is right only for an ideal reverse kernel; here the noise
    of y is added at every level and the last twist is the likelihood, so that the weights are
    consistent for any kernel.

    Consistent. With weights off it is guidance by the noised observation.

    Cost: one network evaluation a particle and step; one decomposition of the operator a run.
    """

    def takes_exact(self, weighted):
        """Always."""
        return True

    def check(self, model):
        """Raises ``InputError`` unless the observation is linear-Gaussian."""
        require_singular(model, "MCGDiff")

    def prepare(self, key, model):
        """The singular system of the operator."""
        return singular_system(model)

    @staticmethod
    def _condition(system, transition, level):
        """A transition to ``level``, conditioned on the observation noised to it."""
        pseudo = noised_observation(system, level)
        matrix = pseudo.scale * system.values[:, None] * system.right
        residual = pseudo.target - matrix @ transition.mean
        return transition.conditioned(matrix, residual, jnp.diag(pseudo.variances))

    def start(self, key, model, shared):
        """The terminal law, conditioned."""
        terminal = model.problem.prior.terminal()
        law = self._condition(shared, terminal, model.level(0))
        x = law.sample(key)
        return x, law.log_ratio(x)

    def guide(self, model, shared, x, step):
        """The noised observation's density; the network evaluation is for the draw."""
        level = model.level(step)
        log_twist = noised_observation(shared, level).log_density(shared, x)
        return log_twist, model.denoise_for_kernel(x, level)

    def law(self, model, shared, x, guide, step):
        """The reverse kernel, conditioned; not that of the last step to an exact observation."""
        return self._condition(shared, model.transition(x, guide, step), model.level(step + 1))

    def propose(self, key, model, shared, x, guide, step):
        """A draw of the conditioned kernel."""
        move = partial(super().propose, key, model, shared, x, guide, step)
        return end_exactly(key, model, shared, x, guide, step, move)
