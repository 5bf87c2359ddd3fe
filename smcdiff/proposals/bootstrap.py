"""The bootstrap filter: propose from the prior's reverse kernel."""

from __future__ import annotations

import jax.numpy as jnp

from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.proposals.base import Proposal


class Bootstrap(Proposal):
    """Proposes from the reverse kernel; the likelihood enters only through the weights.

    Consistent. Cost: one network evaluation a particle and step. It needs nothing of the likelihood
    but its value (a black box will do), and many particles.

    Attributes:
        temper: the twist is psi_t = p(y given m(x_t))^temper; 0 is the plain bootstrap filter, in
            which the observation is weighed once, at the end.
    """

    temper: float = static(default=0.0)

    def __post_init__(self):
        if not 0.0 <= self.temper <= 1.0:
            raise InputError(f"Bootstrap: temper is {self.temper}; it must lie in [0, 1]")

    def guide(self, model, shared, x, step):
        """The tempered likelihood of the denoised mean."""
        if self.temper == 0.0:
            return jnp.zeros(()), model.denoise_for_kernel(x, model.level(step))
        denoised = model.denoise(x, model.level(step))
        return self.temper * model.problem.log_twist(model.event(denoised)), denoised

    def law(self, model, shared, x, guide, step):
        """The reverse kernel."""
        return model.transition(x, guide, step)
