"""Rejuvenation: RePaint's jump as a Metropolis-Hastings move after any proposal."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base import _cpu as cpu
from smcdiff.base.module import static
from smcdiff.diffusion import kernels
from smcdiff.diffusion.laws import Law
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals._wrapped import Wrapped
from smcdiff.proposals.base import Draw
from smcdiff.twists import Evaluation


class Place(NamedTuple):
    """Where a particle is while it is moved.

    Attributes:
        x: (d,).
        log_twist: log psi_s(x).
    """

    x: Float[Array, " d"]
    log_twist: Float[Array, ""]


class Rejuvenated(Wrapped):
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
        moves: moves per step.
        jump: levels to go up.
        every: steps from one step with moves to the next.
        above: moves are made at levels of higher log-SNR only; the moves of noisier levels follow
            a twist that may be wrong there.
    """

    moves: int = static(default=1)
    jump: int = static(default=1)
    every: int = static(default=1)
    above: float = static(default=-math.inf)

    def __post_init__(self):
        for name in ("moves", "jump", "every"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"Rejuvenated: {name} is {value}; it must be at least 1")

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` where the proposal within does not fit, or there are few steps."""
        super().check(model)
        if self.jump >= model.num_steps:
            raise InputError(
                f"Rejuvenated: jump is {self.jump}; it must be below num_steps = {model.num_steps}"
            )

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """The proposal's draw, moved; the weight is that of the draw before the moves."""
        key_draw, key_moves = jax.random.split(key)
        drawn = self.proposal.propose(key_draw, model, prepared, x, evaluation, t, s)

        def rejuvenate(x):
            before = self.place(model, prepared, x, s)

            def move(place, key):
                return self.move(key, model, prepared, place, s), None

            keys = jax.random.split(key_moves, self.moves)
            after, _ = jax.lax.scan(move, before, keys)
            # The engine adds the twist of where the particle is now.
            return after.x, before.log_twist - after.log_twist

        possible = ~s.is_clean & (s.index >= self.jump) & (s.index % self.every == 0)
        possible &= s.log_snr > self.above
        moved, change = jax.lax.cond(
            possible, rejuvenate, lambda x: (x, jnp.zeros_like(drawn.log_ratio)), drawn.x
        )
        return Draw(moved, drawn.log_ratio + change)

    def place(self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], s: Level) -> Place:
        """The place of a particle at level s."""
        return Place(x, self.proposal.evaluate(model, prepared, x, s).log_twist)

    def move(
        self, key: PRNGKeyArray, model: ReverseModel, prepared: Any, place: Place, s: Level
    ) -> Place:
        """One move of a particle at level s."""
        key_up, key_down, key_accept = jax.random.split(key, 3)
        t = model.level(s.index - self.jump)
        # Both evaluations may factorise: on a CPU not at the same time.
        noisy = kernels.renoise(key_up, cpu.after(place.x, place.log_twist), s, t)
        law = self._law_down(model, prepared, noisy, t, s)
        candidate = self.place(model, prepared, law.sample(key_down), s)
        gain = candidate.log_twist + law.log_ratio(candidate.x)
        gain -= place.log_twist + law.log_ratio(place.x)
        accepted = (-jax.random.exponential(key_accept) < gain) | (not model.weighted)
        return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), candidate, place)

    def _law_down(
        self, model: ReverseModel, prepared: Any, noisy: Float[Array, " d"], t: Level, s: Level
    ) -> Law:
        """The law of x_s given x_t, ``jump`` levels above it in one step."""
        evaluation = self.proposal.evaluate(model, prepared, noisy, t)
        law = self.proposal.law(model, prepared, noisy, evaluation, t, s)
        return model.transition(noisy, evaluation.denoised, t, s) if law is None else law
