"""The reverse diffusion with unknown parameters, as the model that the particle filter runs.

The filter targets p(theta) p(x_{t:T}) psi_t(x_t, theta). A particle draws x_s by a proposal that is
handed the problem given its theta, is weighed with that theta, and then moves theta by a Markov
chain that leaves p(theta) psi_s(x_s, theta) as it is: a particle that is properly weighted stays
so. All of it needs the network at x_s once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smcdiff.base import _cpu as cpu
from smcdiff.base.module import Module
from smcdiff.diffusion.schedules import Level
from smcdiff.moves import Move
from smcdiff.moves._conjugate import Conjugate, redraw
from smcdiff.moves.base import Experience, Frame
from smcdiff.problem import Problem, ReverseModel
from smcdiff.proposals import Proposal
from smcdiff.sampler._steered_diffusion import Ends, SteeredDiffusion
from smcdiff.twists import Evaluation

_NUM_DRAWS = 1024


class JointParticle(NamedTuple):
    """What travels.

    Attributes:
        x: (d,).
        parameters: (p,) unconstrained.
        evaluation: at x and the parameters.
        log_weighed: log psi at x and the parameters before they were moved.
        log_ratio: log p - log q of the draw of x.
        log_size: of the steps that moved the parameters.
        acceptance: of those steps.
    """

    x: Float[Array, " d"]
    parameters: Float[Array, " p"]
    evaluation: Evaluation
    log_weighed: Float[Array, ""]
    log_ratio: Float[Array, ""]
    log_size: Float[Array, ""]
    acceptance: Float[Array, ""]


class Shared(NamedTuple):
    """What the particles of a chain share.

    Attributes:
        prepared: by the proposal, at some value of the parameters.
        frame: of the parameters' prior.
    """

    prepared: Any
    frame: Frame

    @classmethod
    def of(cls, key: PRNGKeyArray, proposal: Proposal, model: ReverseModel) -> Shared:
        """Of a chain."""
        keys = jax.random.split(jax.random.key(0), _NUM_DRAWS)
        draws = jax.vmap(model.problem.draw_parameters)(keys)
        return cls(proposal.prepare(key, model), Frame.of(draws))


class JointDiffusion(Module):
    """The Feynman-Kac model of a reverse diffusion with unknown parameters under a proposal.

    Its steps are those of `SteeredDiffusion`.

    Attributes:
        proposal: the sampler of x.
        model: the reverse model.
        shared: by the particles of a chain.
        move: of the parameters.
        conjugate: those of them that are drawn as well, where the twist allows.
    """

    proposal: Proposal
    model: ReverseModel
    shared: Shared
    move: Move
    conjugate: tuple[Conjugate, ...] = ()

    @property
    def num_steps(self) -> int:
        """Steps of the filter: one more than reverse steps."""
        return self.model.num_steps + 1

    def init(self, key: PRNGKeyArray) -> JointParticle:
        """A blank state, with parameters drawn from their prior."""
        x, parameters = jnp.zeros(self.model.size), self.model.problem.draw_parameters(key)
        evaluation, zero = self._given(self.model, parameters).blank(x), jnp.zeros((), x.dtype)
        size = jnp.full_like(zero, jnp.log(self.move.first_size(parameters.shape[0])))
        target = jnp.full_like(zero, self.move.target)
        return JointParticle(x, parameters, evaluation, zero, zero, size, target)

    def statistics(self, particle: JointParticle) -> Experience:
        """What moves learn their scale from."""
        return Experience.of(
            particle.parameters, self.shared.frame, particle.log_size, particle.acceptance
        )

    def step(
        self, key: PRNGKeyArray, t: Int[Array, ""], prev: JointParticle, means: Experience
    ) -> JointParticle:
        """The particle after the filter's step t, from 1."""
        key_draw, key_move, key_redraw = jax.random.split(key, 3)
        own = self._given(self.model, prev.parameters)
        x, log_ratio = own.draw(key_draw, t, prev.x, prev.evaluation)
        s = self.model.level(t - 1)

        def follow(
            value: Callable[[ReverseModel, Any], Array],
            evaluate: Callable[[Array], Evaluation],
            seen: Array,
            level: Level | None,
        ) -> JointParticle:
            """The parameters redrawn and moved, by what ``value`` says for the model given some."""
            # One after the other, for the sake of CPUs; see `smcdiff.base._cpu`.
            weighed = value(own.model, own.prepared)
            later = jax.tree.map(lambda a: cpu.after(a, weighed), means)
            scale = later.scale(self.move, self.shared.frame)
            start = cpu.after(prev.parameters, scale.root[0, 0])
            start = self.redrawn(key_redraw, start, seen, level)
            moved = self.move(key_move, self._log_density(value), start, scale)
            return JointParticle(
                x, moved.position, evaluate(moved.position), weighed,
                log_ratio, scale.log_size, moved.acceptance,
            )  # fmt: skip

        def reach(x: Array) -> JointParticle:
            sight = self.model.look(x, s)

            def value(model: ReverseModel, prepared: Any) -> Array:
                return self.proposal.log_twist(model.seen(sight), prepared, x, s)

            def evaluate(parameters: Array) -> Evaluation:
                given = self._given(self.model, parameters)
                return self.proposal.evaluate(given.model.seen(sight), given.prepared, x, s)

            return follow(value, evaluate, sight.denoised, s)

        def finish(x: Array) -> JointParticle:
            def value(model: ReverseModel, prepared: Any) -> Array:
                return self.proposal.final(model, prepared, x).astype(x.dtype)

            return follow(value, lambda parameters: prev.evaluation, x, None)

        return jax.lax.cond(s.is_clean, finish, reach, x)

    def _log_density(
        self, value: Callable[[ReverseModel, Any], Array]
    ) -> Callable[[Float[Array, " p"]], Float[Array, ""]]:
        """Log p(theta) psi of the parameters; ``value`` is log psi of the model given some."""

        def log_density(parameters: Array) -> Array:
            given = self._given(self.model, parameters)
            log_twist = value(given.model, given.prepared)
            return given.model.problem.log_prior().astype(log_twist.dtype) + log_twist

        return log_density

    def log_potential(
        self, t: Int[Array, ""], prev: JointParticle | None, particle: JointParticle
    ) -> Float[Array, ""]:
        """Log p - log q of the draw, and the change of the log twist; 0 for a blank."""
        if prev is None:
            return jnp.zeros((), particle.log_ratio.dtype)
        return particle.log_ratio + particle.log_weighed - prev.evaluation.log_twist

    def ends(self, particles: JointParticle) -> Ends:
        """Of the particles of all chains after the last step."""
        return Ends((particles.x,), particles.parameters)

    def given(self, parameters: Float[Array, " p"]) -> SteeredDiffusion:
        """The diffusion of x given the parameters."""
        return self._given(self.model, parameters)

    def redrawn(
        self,
        key: PRNGKeyArray,
        parameters: Float[Array, " p"],
        x: Float[Array, " d"],
        s: Level | None = None,
    ) -> Float[Array, " p"]:
        """The parameters, of which the conjugate ones are drawn given all else.

        Args:
            key: random key.
            parameters: unconstrained.
            x: x_0 itself, or the denoised mean at a level.
            s: the level; None where x_0 is there.
        """

        def widened(problem: Problem) -> Float[Array, " m"] | None:
            if s is None:
                return None
            model = dataclasses.replace(self.model, problem=problem)
            return self.proposal.widened_by(
                model, self.proposal.adapt(model, self.shared.prepared), s
            )

        problem, event = self.model.problem.at(parameters), self.model.event(x)
        if not self.conjugate or (s is not None and widened(problem) is None):
            return parameters  # nothing to draw, or a twist that no noise can be taken from
        problem = redraw(self.conjugate, key, problem, event, None if s is None else widened)
        return problem.unknowns.values

    def _given(self, model: ReverseModel, parameters: Float[Array, " p"]) -> SteeredDiffusion:
        """The same, of a model that may have seen the state."""
        model = model.given(parameters)
        adapted = self.proposal.adapt(model, self.shared.prepared)
        return SteeredDiffusion(self.proposal, model, adapted)
