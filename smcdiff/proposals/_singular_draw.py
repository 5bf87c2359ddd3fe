"""What DDRM and DAPS share: Gaussian draws in singular coordinates, whatever the reverse kernel."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.laws import Substituted
from smcdiff.diffusion.laws.substituted import AlongDirections
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals._ending import end_exactly
from smcdiff.proposals.base import Draw, Weighed
from smcdiff.twists import Evaluation, MeanTwist, NoisedObservation
from smcdiff.twists._singular import SingularSystem, require_singular, system_of


class _Prepared(NamedTuple):
    """The observation in singular coordinates, and what the twist prepared."""

    system: SingularSystem
    twist: Any


class SingularDraw(Weighed):
    """A Gaussian draw in singular coordinates; a subclass gives its law.

    With weights on the draws are weighed against the reverse kernel; the last step is the reverse
    kernel's own, given the observation where that is exact.

    Attributes:
        twist: by default `twists.NoisedObservation`.
    """

    twist: MeanTwist = dataclasses.field(default=NoisedObservation(), kw_only=True)

    def first_law(self, model: ReverseModel, system: SingularSystem) -> AlongDirections:
        """The law of x_T."""
        raise NotImplementedError(f"{type(self).__name__} must define first_law")

    def next_law(
        self,
        model: ReverseModel,
        system: SingularSystem,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
        s: Level,
    ) -> AlongDirections:
        """The law of x_s given x_t."""
        raise NotImplementedError(f"{type(self).__name__} must define next_law")

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless the observation is linear-Gaussian."""
        require_singular(model, type(self).__name__)
        super().check(model)

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> _Prepared:
        """The singular system of the operator, and the twist's."""
        twist = self.prepare_twist(key, model)
        return _Prepared(system_of(model, twist), twist)

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: _Prepared) -> Draw:
        """A draw of the first law; weighed against the terminal one."""
        law = self.first_law(model, prepared.system)
        x = law.sample(key)
        if not model.weighted:
            return Draw(x, jnp.zeros(()))
        return Draw(x, model.problem.prior.terminal().log_prob(x) - law.log_prob(x))

    def evaluate(
        self, model: ReverseModel, prepared: _Prepared, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The twist where weights are on; one network evaluation."""
        return self.weigh(model, prepared.twist, x, model.denoise(x, t), t)

    def law(
        self,
        model: ReverseModel,
        prepared: _Prepared,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Substituted:
        """The next law, in the place of the reverse kernel; at the last step that itself."""
        denoised = evaluation.denoised
        assert denoised is not None  # by `evaluate`
        draw = self.next_law(model, prepared.system, x, denoised, t, s)
        keep = s.is_clean & model.weighted
        return Substituted(model.transition(x, denoised, t, s), draw, keep)

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: _Prepared,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """A draw of the next law."""
        if not model.weighted:
            law = self.law(model, prepared, x, evaluation, t, s)
            return Draw(law.draw.sample(key), jnp.zeros(()))
        plain = super().propose
        return end_exactly(plain, prepared.system, key, model, prepared, x, evaluation, t, s)
