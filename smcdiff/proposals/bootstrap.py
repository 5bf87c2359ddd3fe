"""The bootstrap filter: propose from the prior's reverse kernel."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Array, Float

from smcdiff.diffusion.laws import Mixture
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals.base import Steered
from smcdiff.twists import Evaluation, Flat, Twist


class Bootstrap(Steered):
    """Proposes from the reverse kernel; the likelihood enters only through the weights.

    Consistent. Cost: one network evaluation per particle and step. It needs nothing of the
    likelihood but its value (a black box will do), and many particles.

    Attributes:
        twist: by default none: the observation is weighed once, at the end.
            ``twists.Likelihood(temper)`` weighs on the way.
    """

    twist: Twist = dataclasses.field(default=Flat(), kw_only=True)

    def takes_exact(self, weighted: bool) -> bool:
        """Never: no draw satisfies an exact observation."""
        return False

    def law(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Mixture:
        """The reverse kernel."""
        return model.transition(x, evaluation.denoised, t, s)
