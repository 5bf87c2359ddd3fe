"""Rejuvenation: RePaint's jump as a Metropolis-Hastings move after any proposal."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from smcdiff.base.module import static
from smcdiff.diffusion.laws.changed import Change
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.bootstrap import Bootstrap
from smcdiff.proposals.repaint import renoise


class Rejuvenated(Proposal):
    """A proposal whose draws are moved again, to give copies of a particle their own values.

    After the draw of x_s the state is noised up by ``jump`` levels with the forward process, to
    x_t, and brought down in one step to x_s', with the proposal's own law q where that can be
    evaluated (it defines `Proposal.law`), else with the reverse kernel. With w = psi_s p / q, all
    given x_t, x_s' is kept with probability min(1, w(x_s') / w(x_s)), else x_s stays. If the
    reverse kernel is exact, p_s(x_s) p(x_t given x_s) = p_t(x_t) p(x_s given x_t), so this is a
    Metropolis-Hastings move of p_s psi_s, and a Gibbs move where w is constant: the weights stay as
    they are and the sampler consistent. For another kernel the move is approximate. The last step
    is not rejuvenated. With weights off every move is accepted.

    Cost: that of the proposal, and for each move the proposal's evaluation twice, at x_t and x_s'
    (and once before the first move).

    Attributes:
        proposal: what draws x_s.
        moves: moves a step.
        jump: levels to go up.
        every: steps from one step with moves to the next.
        above: moves are made at levels of higher log-SNR only; the moves of noisier levels follow
            a twist that may be wrong there.
    """

    proposal: Proposal = dataclasses.field(default_factory=Bootstrap)
    moves: int = static(default=1)
    jump: int = static(default=1)
    every: int = static(default=1)
    above: float = static(default=-math.inf)

    def __post_init__(self):
        for name in ("moves", "jump", "every"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"Rejuvenated: {name} is {value}; it must be at least 1")

    def takes_exact(self, weighted):
        """As the proposal."""
        return self.proposal.takes_exact(weighted)

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
        possible = ~model.is_last(step) & (top >= 0) & ((step + 1) % self.every == 0)
        possible &= model.level(step + 1).log_snr > self.above
        moved, change = jax.lax.cond(
            possible, rejuvenate, lambda x: (x, jnp.zeros_like(log_ratio)), drawn
        )
        return moved, log_ratio + change

    def _log_twist(self, model, shared, x, step):
        return self.proposal.guide(model, shared, x, step)[0]

    def _move(self, key, model: ReverseModel, shared, state, step):
        x, log_twist = state
        # A true dependence on the twist at x: two evaluations that do not wait for each other may
        # each hold a pool thread that the batched LAPACK calls of the other one wait for (CPU).
        key = jax.random.fold_in(key, jnp.isnan(log_twist))
        key_up, key_down, key_accept = jax.random.split(key, 3)
        s, t = model.level(step), model.level(step - self.jump)
        noisy = renoise(key_up, x, s, t)
        law = self._law_down(model, shared, noisy, step)
        candidate = law.sample(key_down)
        new_twist = self._log_twist(model, shared, candidate, step)
        gain = new_twist + law.log_ratio(candidate) - log_twist - law.log_ratio(x)
        accepted = (-jax.random.exponential(key_accept) < gain) | (not model.weighted)
        return jnp.where(accepted, candidate, x), jnp.where(accepted, new_twist, log_twist)

    def _law_down(self, model: ReverseModel, shared, noisy, step) -> Change:
        """The law of x_s given x_t, ``jump`` levels above it in one step."""
        s, t = model.level(step), model.level(step - self.jump)
        if type(self.proposal).law is Proposal.law:
            denoised = model.denoise_for_kernel(noisy, t)
            return model.kernel(model.problem.prior, noisy, denoised, t, s)
        # A grid on which t to s is one step, and not the last.
        levels = Level(
            *(jnp.stack([above, below, below]) for above, below in zip(t, s, strict=True))
        )
        stride = dataclasses.replace(model, levels=levels)
        guide = self.proposal.guide(stride, shared, noisy, jnp.int32(0))[1]
        return self.proposal.law(stride, shared, noisy, guide, jnp.int32(0))
