"""The reverse diffusion under a proposal, as the model that the particle filter runs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from smcdiff.base.module import Module
from smcdiff.proposals import Proposal, ReverseModel


class SteeredDiffusion(Module):
    """The Feynman-Kac model of a reverse diffusion under a proposal.

    A particle is (x, log psi_t(x), guide): the evaluation at x_t travels with it, so that the
    denoiser is called once a particle and step.
    """

    proposal: Proposal
    model: ReverseModel
    shared: Any

    def blank(self):
        """Zeros in the shapes of a particle."""
        x = jnp.zeros(self.model.size)
        steered = self.proposal, self.model, self.shared
        evaluation = _guide.eval_shape(*steered, x, jnp.int32(0))
        return x, *jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), evaluation)

    def propose(self, key: PRNGKeyArray, t, prev):
        """The particle after reverse step ``t`` (0 to num_steps; 0 starts it), with its log weight.

        ``t`` is the same for all particles, so that the conditionals stay branches under vmap.
        """
        x, log_twist, guide = prev

        def start(x, guide):
            return self.proposal.start(key, self.model, self.shared)

        def move(x, guide):
            return self.proposal.propose(key, self.model, self.shared, x, guide, t - 1)

        def evaluate(x, t):
            steered = self.proposal, self.model, self.shared
            return _guide(*steered, x, t)

        def finish(x, t):
            # The last level needs no network: psi_0 is the likelihood, and nothing is drawn after.
            return self.proposal.final(self.model, self.shared, x).astype(x.dtype), guide

        x, log_ratio = jax.lax.cond(t == 0, start, move, x, guide)
        last = t == self.model.num_steps
        new_twist, guide = jax.lax.cond(last, finish, evaluate, x, t)
        return (x, new_twist, guide), log_ratio + new_twist - log_twist


@jax.jit
def _guide(proposal: Proposal, model: ReverseModel, shared: Any, x, t):
    """``proposal.guide``; under jit, so that the network is traced once and not at every use."""
    return proposal.guide(model, shared, x, t)
