"""A proposal around another one, which is asked for all that the outer one does not change."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals.base import Draw, Proposal
from smcdiff.proposals.bootstrap import Bootstrap
from smcdiff.twists import Evaluation


class Wrapped(Proposal):
    """Base class of proposals around another one, whose weight is a function of where x_s is.

    Attributes:
        proposal: the one within.
    """

    proposal: Proposal = dataclasses.field(default_factory=Bootstrap)

    def takes_exact(self, weighted: bool) -> bool:
        """As the proposal."""
        return self.proposal.takes_exact(weighted)

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` where the proposal does not fit, or weighs a particle's path."""
        self.proposal.check(model)
        if self.proposal.follows_path:
            raise InputError(
                f"{type(self).__name__}: {type(self.proposal).__name__} weighs its particles by"
                " their path; put another proposal within, Bootstrap() or Twisted() for example"
            )

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """As the proposal."""
        return self.proposal.prepare(key, model)

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: Any) -> Draw:
        """As the proposal."""
        return self.proposal.start(key, model, prepared)

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """As the proposal."""
        return self.proposal.evaluate(model, prepared, x, t)

    def final(self, model: ReverseModel, prepared: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
        """As the proposal."""
        return self.proposal.final(model, prepared, x)
