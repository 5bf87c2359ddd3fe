"""The reverse diffusion under a proposal, as the model that the particle filter runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smcdiff.base.module import Module
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals import Proposal
from smcdiff.twists import Evaluation


class Ends(NamedTuple):
    """Where all particles are at last.

    Attributes:
        states: x of each stage, (C, N, d).
        given: (C, N, p) what the problem of the last stage varies with; None where it is one for
            all particles.
    """

    states: tuple[Float[Array, "c n _"], ...]
    given: Float[Array, "c n p"] | None


class Particle(NamedTuple):
    """What travels: the evaluation at x_t does, so that the denoiser is called once per step.

    Attributes:
        x: (d,).
        evaluation: at x.
        log_ratio: log p - log q of the draw of x.
    """

    x: Float[Array, " d"]
    evaluation: Evaluation
    log_ratio: Float[Array, ""]


class SteeredDiffusion(Module):
    """The Feynman-Kac model of a reverse diffusion under a proposal.

    The filter's step 0 makes blank particles of weight one, step 1 draws x_T, and step k + 1 is the
    reverse step k: so the compiled program holds the network once, and not a second time for the
    start.

    Attributes:
        proposal: the sampler.
        model: the reverse model.
        prepared: what the proposal prepared for the chain.
    """

    proposal: Proposal
    model: ReverseModel
    prepared: Any

    @property
    def num_steps(self) -> int:
        """Steps of the filter: one more than reverse steps."""
        return self.model.num_steps + 1

    def init(self, key: PRNGKeyArray) -> Particle:
        """A blank: zeros in the shapes of a particle."""
        x = jnp.zeros(self.model.size)
        return Particle(x, self.blank(x), jnp.zeros((), x.dtype))

    def step(self, key: PRNGKeyArray, t: Int[Array, ""], prev: Particle) -> Particle:
        """The particle after the filter's step t, from 1."""
        x, log_ratio = self.draw(key, t, prev.x, prev.evaluation)
        return self.arrive(x, log_ratio, self.model.level(t - 1), prev.evaluation)

    def arrive(
        self, x: Float[Array, " d"], log_ratio: Float[Array, ""], s: Level, before: Evaluation
    ) -> Particle:
        """The particle at x, evaluated there.

        Args:
            x: at level s.
            log_ratio: of the draw of x.
            s: the level.
            before: the evaluation where the step began.
        """

        def finish(x: Array) -> Evaluation:
            # The last level needs no network: psi_0 is the likelihood, and nothing is drawn after.
            log_twist = self.proposal.final(self.model, self.prepared, x).astype(x.dtype)
            return before._replace(log_twist=log_twist)

        def reach(x: Array) -> Evaluation:
            return self.proposal.follow(self._evaluate(x, s), before, s)

        evaluation = jax.lax.cond(s.is_clean, finish, reach, x)
        return Particle(x, evaluation, log_ratio)

    def ends(self, particles: Particle) -> Ends:
        """Of the particles of all chains after the last step."""
        return Ends((particles.x,), None)

    def blank(self, x: Float[Array, " d"]) -> Evaluation:
        """Zeros in the shapes of an evaluation."""
        shapes = jax.eval_shape(self._evaluate, x, self.model.first)
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)

    def draw(
        self,
        key: PRNGKeyArray,
        t: Int[Array, ""],
        x: Float[Array, " d"],
        evaluation: Evaluation,
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """Where the filter's step t leads from x, and log p - log q of that.

        t is the same for all particles, so that the conditional stays a branch under vmap.
        """
        model, prepared = self.model, self.prepared

        def start() -> tuple[Array, Array]:
            return self.proposal.start(key, model, prepared)

        def move() -> tuple[Array, Array]:
            before, s = model.level(t - 2), model.level(t - 1)
            return self.proposal.propose(key, model, prepared, x, evaluation, before, s)

        return jax.lax.cond(t == 1, start, move)

    def log_potential(
        self, t: Int[Array, ""], prev: Particle | None, particle: Particle
    ) -> Float[Array, ""]:
        """Log p - log q of the draw, and the change of the log twist; 0 for a blank."""
        if prev is None:
            return jnp.zeros((), particle.log_ratio.dtype)
        change = particle.evaluation.log_twist - prev.evaluation.log_twist
        return particle.log_ratio + change

    def _evaluate(self, x: Float[Array, " d"], t: Level) -> Evaluation:
        return self.proposal.evaluate(self.model, self.prepared, x, t)
