"""The reverse kernel conditioned on the twist of the next level: MCGDiff and moment matching."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff import twists
from smcdiff.diffusion.laws import Law
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals._ending import end_exactly
from smcdiff.proposals.base import Draw, Steered
from smcdiff.twists import Evaluation, NoisedObservation, Twist


class Conditioned(Steered):
    """Draws q(x_s) ~ p(x_s given x_t) psi_s(x_s), as far as psi_s is known from x_t.

    Consistent. Cost: that of the twist.

    Attributes:
        twist: one that can be conditioned on.
    """

    twist: Twist = dataclasses.field(kw_only=True)

    def __post_init__(self):
        if not self.twist.conditions:
            raise InputError(
                f"{type(self).__name__}: {type(self.twist).__name__} cannot be conditioned on; use"
                " twists.NoisedObservation(), MomentMatched() or Lanczos(), or proposals.Twisted"
            )

    def law(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Law:
        """The reverse kernel, conditioned."""
        transition = model.transition(x, evaluation.denoised, t, s)
        return self.twist.condition(transition, model, prepared, evaluation, t, s)


class MomentMatched(Conditioned):
    """Conditional of the locally linear-Gaussian model, with the Tweedie covariance.

    Exact for Gaussian priors with their exact kernel (constant weights). Using the moment-matched
    likelihood of Boys et al. (2023) and Rozet et al. (2024) as twist and proposal of a particle
    filter corrects what the Gaussian approximation leaves out.

    Consistent. Cost: one network evaluation and d_y vector-Jacobian products per particle and step,
    and dense algebra in d_y x d_y.

    Attributes:
        twist: `twists.MomentMatched`, whose ``max_observations`` is the largest d_y accepted.
    """

    twist: Twist = dataclasses.field(default=twists.MomentMatched(), kw_only=True)


class LanczosMomentMatched(Conditioned):
    """`MomentMatched` for many observations, determinants and covariances included.

    For exact denoisers. Consistent: a small space costs efficiency and nothing else. Cost: one
    network evaluation and ``twist.size`` + 1 vector-Jacobian products per particle and step; one
    decomposition of the operator per run.

    Attributes:
        twist: `twists.Lanczos`.
    """

    twist: Twist = dataclasses.field(default=twists.Lanczos(), kw_only=True)


class MCGDiff(Conditioned):
    """Condition every reverse step on the observation, noised to the level of the step.

    As the noise of y goes to zero this is the published algorithm 1 (Cardoso et al. 2023, section
    2, kappa = 0), and for an exact observation the last step draws the reverse kernel given that
    A x_0 = y. With noise, the paper instead lets y stand for x_tau at the level tau whose noise is
    that of y, and leaves the reverse kernel alone below it, which is right only for an ideal
    reverse kernel; here the noise of y is added at every level and the last twist is the
    likelihood, so that the weights are consistent for any kernel.

    Consistent. With weights off it is guidance by the noised observation. Cost: one network
    evaluation per particle and step; one decomposition of the operator per run.

    Attributes:
        twist: `twists.NoisedObservation`.
    """

    twist: NoisedObservation = dataclasses.field(default=NoisedObservation(), kw_only=True)

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: Any) -> Draw:
        """The terminal law, conditioned."""
        terminal = model.problem.prior.terminal()
        law = self.twist.condition_on(terminal, prepared, model.first)
        x = law.sample(key)
        return Draw(x, law.log_ratio(x))

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """A draw of the conditioned kernel."""
        plain = super().propose
        return end_exactly(plain, prepared, key, model, prepared, x, evaluation, t, s)
