"""The proposal of an earlier stage, of a model whose diffusion sites depend on each other."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Array, Float

from smcdiff.base.module import static
from smcdiff.diffusion.laws import Defended, Mixture, Tilted
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals.twisted import Twisted
from smcdiff.twists import Evaluation, Twist
from smcdiff.twists._ahead import Ahead


class TwistedAhead(Twisted):
    """`Twisted` by what the sites of the stage let one expect of the observation.

    At the end of the stage psi_0 is no likelihood yet: the first weight of the next one divides by
    it.

    Attributes:
        twist: `smcdiff.twists._ahead.Ahead`.
        steers: whether its gradient is followed; without, the draw is the reverse kernel's.
    """

    twist: Twist = dataclasses.field(default=Ahead(), kw_only=True)
    floor: float = static(default=0.0, kw_only=True)
    steers: bool = static(default=True, kw_only=True)

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The twist, with its gradient where it is followed."""
        if self.steers:
            return super().evaluate(model, prepared, x, t)
        return self.twist.evaluate(model, prepared.twist, x, t)

    def law(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Tilted | Defended | Mixture:
        """The reverse kernel, tilted where the gradient is followed."""
        if self.steers:
            return super().law(model, prepared, x, evaluation, t, s)
        return model.transition(x, evaluation.denoised, t, s)

    def final(self, model: ReverseModel, prepared: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The twist at the sites as they are."""
        return Ahead().at(model, prepared.twist, x, x, Level.clean()).log_twist
