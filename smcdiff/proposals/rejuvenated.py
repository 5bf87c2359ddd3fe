"""Rejuvenation: RePaint's jump as a Metropolis-Hastings move after any proposal."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from smcdiff.errors import InputError
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.bootstrap import Bootstrap
from smcdiff.proposals.repaint import renoise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rejuvenated(Proposal):
    """A proposal whose draws are moved again, to give copies of a particle their own values.

    After the draw of x_s the state is noised up by ``jump`` levels with the forward process and
    brought down in one reverse step to x_s'; x_s' is kept with probability min(1, psi_s(x_s') /
    psi_s(x_s)), else x_s stays. If the reverse kernel is exact, up and down are a Gibbs move of the
    prior's marginal p_s, and with the acceptance step a Metropolis-Hastings move of p_s psi_s: the
    weights stay as they are and the sampler consistent. For another kernel the move is approximate.
    The last step is not rejuvenated. With weights off every move is accepted.

    Cost: that of the proposal, and for each move one network evaluation for the step down and one
    evaluation of the proposal's twist.

    Attributes:
        proposal: what draws x_s.
        moves: moves a step.
        jump: levels to go up.
    """

    proposal: Proposal = dataclasses.field(default_factory=Bootstrap)
    moves: int = dataclasses.field(default=1, metadata={"static": True})
    jump: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self):
        for name in ("moves", "jump"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"Rejuvenated: {name} is {value}; it must be at least 1")

    def check(self, model):
        """Raises ``InputError`` where the proposal does not fit, or follows a path of its own."""
        self.proposal.check(model)
        if self.jump >= model.num_steps:
            raise InputError(
                f"Rejuvenated: jump is {self.jump}; it must be below num_steps = {model.num_steps}"
            )
        if self.proposal.path_weighted:
            raise InputError(
                f"Rejuvenated: {type(self.proposal).__name__} weighs a path of the observed"
                " entries, which this move would leave; use proposals.RePaint()"
            )

    def prepare(self, key, model):
        """As the proposal."""
        return self.proposal.prepare(key, model)

    def start(self, key, model, shared):
        """As the proposal."""
        return self.proposal.start(key, model, shared)

    def guide(self, model, shared, x, step):
        """As the proposal."""
        return self.proposal.guide(model, shared, x, step)

    def final(self, model, shared, x):
        """As the proposal."""
        return self.proposal.final(model, shared, x)

    def propose(self, key, model: ReverseModel, shared, x, guide, step):
        """The proposal's draw, moved; the weight is that of the draw before the moves."""
        key_draw, key_moves = jax.random.split(key)
        drawn, log_ratio = self.proposal.propose(key_draw, model, shared, x, guide, step)

        def rejuvenate(drawn):
            before = self._log_twist(model, shared, drawn, step + 1)

            def move(state, key):
                return self._move(key, model, shared, state, step + 1), None

            keys = jax.random.split(key_moves, self.moves)
            (moved, after), _ = jax.lax.scan(move, (drawn, before), keys)
            # The engine adds the twist of where the particle is now.
            return moved, before - after

        top = step + 1 - self.jump
        possible = (step < model.num_steps - 1) & (top >= 0)
        moved, change = jax.lax.cond(
            possible, rejuvenate, lambda x: (x, jnp.zeros_like(log_ratio)), drawn
        )
        return moved, log_ratio + change

    def _log_twist(self, model, shared, x, step):
        return self.proposal.guide(model, shared, x, step)[0]

    def _move(self, key, model: ReverseModel, shared, state, step):
        x, log_twist = state
        key_up, key_down, key_accept = jax.random.split(key, 3)
        s, t = model.level(step), model.level(step - self.jump)
        noisy = renoise(key_up, x, s, t)
        down = model.kernel(model.problem.prior, noisy, model.denoise_for_kernel(noisy, t), t, s)
        candidate = down.sample(key_down)
        new_twist = self._log_twist(model, shared, candidate, step)
        log_uniform = -jax.random.exponential(key_accept)
        accepted = (log_uniform < new_twist - log_twist) | (not model.weighted)
        return jnp.where(accepted, candidate, x), jnp.where(accepted, new_twist, log_twist)
