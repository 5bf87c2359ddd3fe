"""The last step to an exact observation: the reverse kernel given it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.laws import pinned
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals.base import Draw
from smcdiff.twists import Evaluation
from smcdiff.twists._singular import SingularSystem


def end_exactly(
    propose: Callable[..., Draw],
    system: SingularSystem,
    key: PRNGKeyArray,
    model: ReverseModel,
    prepared: Any,
    x: Float[Array, " d"],
    evaluation: Evaluation,
    t: Level,
    s: Level,
) -> Draw:
    """A proposal's draw, but at the last step to an exact observation the reverse kernel given it.

    The log ratio of that step is the log density of A x_0 at y under the reverse kernel.

    Args:
        propose: what is done at any other step, with the arguments of `Proposal.propose`.
        system: the observation in singular coordinates.
        key: random key.
        model: the reverse model.
        prepared: what the proposal prepared.
        x: (d,) the particle.
        evaluation: at x.
        t: its level.
        s: the next level.
    """

    def move() -> Draw:
        return propose(key, model, prepared, x, evaluation, t, s)

    if not model.problem.is_noise_free:
        return move()

    def last() -> Draw:
        transition = model.transition(x, evaluation.denoised, t, s)
        law = pinned(transition, system.directions, system.seen, system.data)
        draw = law.sample(key)
        return Draw(draw, law.log_ratio(draw) - system.log_volume)

    return jax.lax.cond(s.is_clean, last, move)
