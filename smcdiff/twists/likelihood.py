"""The likelihood of the denoised mean, and no twist at all."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import static
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.twists.base import Evaluation, MeanTwist


class Flat(MeanTwist):
    """psi_t = 1: the observation is weighed once, at the end."""

    uses_denoised: ClassVar[bool] = False

    def at(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
    ) -> Evaluation:
        """Zero."""
        return Evaluation(jnp.zeros((), x.dtype), denoised)


class Likelihood(MeanTwist):
    """psi_t = p(y given m(x_t))^temper (Chung et al. 2023; Wu et al. 2023, for temper = 1).

    Far too sure at high noise, where x_0 may still lie anywhere about m; see `Widened`. It needs
    nothing of the likelihood but its value, so a black box will do.

    Attributes:
        temper: power, in (0, 1].
    """

    temper: float = static(default=1.0)

    def __post_init__(self):
        if not 0.0 < self.temper <= 1.0:
            raise InputError(
                f"twists.Likelihood: temper is {self.temper}; it must lie in (0, 1] (twists.Flat()"
                " is no twist)"
            )

    def at(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
    ) -> Evaluation:
        """The tempered log likelihood of the denoised mean."""
        value = model.problem.observe(model.event(denoised)).log_twist
        return Evaluation(self.temper * value, denoised)
