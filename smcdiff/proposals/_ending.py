"""The last step to an exact observation: the reverse kernel given it."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.laws import pinned
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals.base import Draw
from smcdiff.twists._singular import SingularSystem


def end_exactly(
    key: PRNGKeyArray,
    model: ReverseModel,
    system: SingularSystem,
    x: Float[Array, " d"],
    denoised: Float[Array, " d"] | None,
    t: Level,
    s: Level,
    move: Callable[[], Draw],
) -> Draw:
    """``move()``, but the last step to an exact observation is the reverse kernel given it.

    The log ratio of that step is the log density of A x_0 at y under the reverse kernel.

    Args:
        key: random key.
        model: the reverse model.
        system: the observation in singular coordinates.
        x: (d,) the particle.
        denoised: its denoised mean, where the kernel uses it.
        t: its level.
        s: the next level.
        move: what is done at any other step.
    """
    if not model.problem.is_noise_free:
        return move()

    def last() -> Draw:
        transition = model.transition(x, denoised, t, s)
        law = pinned(transition, system.directions, system.seen, system.data)
        draw = law.sample(key)
        return Draw(draw, law.log_ratio(draw) - system.log_volume)

    return jax.lax.cond(s.is_clean, last, move)
