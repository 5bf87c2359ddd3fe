"""The reverse diffusions of sites that depend on each other, one after the other, as one model.

The filter's steps are those of the stages' `SteeredDiffusion`, in turn. A stage starts from noise
given the sites before it, which the particle has by then; its first weight divides by the twist
with which the stage before has ended, so that all of it targets the one posterior.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smcdiff.base.module import Module
from smcdiff.problem import ReverseModel
from smcdiff.proposals import Proposal
from smcdiff.sampler._steered_diffusion import Ends, Particle, SteeredDiffusion
from smcdiff.twists import Evaluation


class StagedParticle(NamedTuple):
    """What travels.

    Attributes:
        x: (d,) of each stage; zeros where it has not begun.
        evaluations: at them.
        log_twist: of the present state.
        log_ratio: log p - log q of the last draw.
    """

    x: tuple[Float[Array, " _"], ...]
    evaluations: tuple[Evaluation, ...]
    log_twist: Float[Array, ""]
    log_ratio: Float[Array, ""]


class StagedDiffusion(Module):
    """The Feynman-Kac model of several reverse diffusions.

    Attributes:
        proposals: of each stage.
        model: of the last stage, with those before.
        prepared: by each proposal, at some values of the sites before.
    """

    proposals: tuple[Proposal, ...]
    model: ReverseModel
    prepared: tuple[Any, ...]

    @property
    def num_steps(self) -> int:
        """Steps of the filter: one more than noise levels."""
        return int(self._ends[-1])

    @property
    def _ends(self) -> np.ndarray:
        """The last step of each stage."""
        return np.cumsum([stage.num_steps + 1 for stage in self.model.stages])

    def init(self, key: PRNGKeyArray) -> StagedParticle:
        """A blank state."""
        x = tuple(jnp.zeros(stage.size) for stage in self.model.stages)
        blanks = tuple(self._stage(k, x).blank(own) for k, own in enumerate(x))
        return StagedParticle(x, blanks, jnp.zeros(()), jnp.zeros(()))

    def step(self, key: PRNGKeyArray, t: Int[Array, ""], prev: StagedParticle) -> StagedParticle:
        """The particle after the filter's step t, from 1."""

        def take(k: int) -> StagedParticle:
            first = 0 if k == 0 else int(self._ends[k - 1])
            own = Particle(prev.x[k], prev.evaluations[k], prev.log_ratio)
            moved = self._stage(k, prev.x).step(key, t - first, own)
            x = (*prev.x[:k], moved.x, *prev.x[k + 1 :])
            evaluations = (*prev.evaluations[:k], moved.evaluation, *prev.evaluations[k + 1 :])
            return StagedParticle(x, evaluations, moved.evaluation.log_twist, moved.log_ratio)

        # The same for all particles, so that the choice stays a branch under vmap.
        stage = jnp.searchsorted(jnp.asarray(self._ends), t)
        return jax.lax.switch(stage, [partial(take, k) for k in range(len(prev.x))])

    def log_potential(
        self, t: Int[Array, ""], prev: StagedParticle | None, particle: StagedParticle
    ) -> Float[Array, ""]:
        """Log p - log q of the draw, and the change of the log twist; 0 for a blank."""
        if prev is None:
            return jnp.zeros((), particle.log_ratio.dtype)
        return particle.log_ratio + particle.log_twist - prev.log_twist

    def ends(self, particles: StagedParticle) -> Ends:
        """Of the particles of all chains after the last step."""
        last = len(particles.x) - 1
        held = jax.vmap(jax.vmap(lambda *x: held_values(self.model, last, x)))
        return Ends(particles.x, held(*particles.x))

    def _stage(self, k: int, x: tuple[Float[Array, " _"], ...]) -> SteeredDiffusion:
        """The diffusion of a stage, given the sites before it."""
        model, proposal, prepared = self.model.stages[k], self.proposals[k], self.prepared[k]
        if k == 0:
            return SteeredDiffusion(proposal, model, prepared)
        model = model.holding(held_values(self.model, k, x))
        return SteeredDiffusion(proposal, model, proposal.adapt(model, prepared))


def held_values(
    model: ReverseModel, k: int, x: tuple[Float[Array, " _"], ...]
) -> Float[Array, " p"]:
    """What stage ``k`` is given of the states of the stages before it, flat."""
    values: dict[str, Array] = {}
    for stage, own in zip(model.stages[:k], x[:k], strict=True):
        values |= stage.problem.layout.split(own)
    held = model.stages[k].problem.held
    assert held is not None
    return held.layout.join(values)
