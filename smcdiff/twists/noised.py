"""Gaussian twists in singular coordinates: the noised observation, and PiGDM's guiding density."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.laws import Law, Mixture, conditioned_along
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.twists._singular import SingularSystem, require_singular
from smcdiff.twists.base import Evaluation, MeanTwist


class _PseudoObservation(NamedTuple):
    """A Gaussian observation in singular coordinates: target = gains V' x + noise.

    Attributes:
        target: (r,).
        gains: (r,).
        variances: (r,) of the noise.
    """

    target: Float[Array, " r"]
    gains: Float[Array, " r"]
    variances: Float[Array, " r"]

    def log_density(self, system: SingularSystem, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log density at a state, with the likelihood's constant."""
        misfit = self.target - self.gains * system.directions(x)
        terms = misfit**2 / self.variances + jnp.log(self.variances)
        return system.log_constant - 0.5 * jnp.sum(terms)


class NoisedObservation(MeanTwist):
    """The observation as one of x_t / alpha_t, as if the prior were flat (Cardoso et al. 2023).

    In singular coordinates y observes x_t / alpha_t with noise 1 + s^2 sigma_t^2 / alpha_t^2
    (whitened). At the next level it is known, so that it can be conditioned on.
    """

    takes_exact: ClassVar[bool] = True
    conditions: ClassVar[bool] = True
    uses_denoised: ClassVar[bool] = False

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless the observation is linear-Gaussian and decomposable."""
        require_singular(model, "twists.NoisedObservation")

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> SingularSystem:
        """The singular system of the operator."""
        return SingularSystem.of(model)

    @staticmethod
    def _observation(system: SingularSystem, level: Level) -> _PseudoObservation:
        variances = system.noise + (system.values * level.sigma / level.alpha) ** 2
        return _PseudoObservation(system.observed, system.values / level.alpha, variances)

    def at(
        self,
        model: ReverseModel,
        prepared: SingularSystem,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
    ) -> Evaluation:
        """The density of the noised observation; the network evaluation is for the draw."""
        return Evaluation(self._observation(prepared, t).log_density(prepared, x), denoised)

    def condition_on(self, law: Mixture, system: SingularSystem, level: Level) -> Law:
        """A law of x at a level, conditioned on the observation noised to it."""
        pseudo = self._observation(system, level)
        residual = pseudo.target - pseudo.gains * system.directions(law.mean)
        return conditioned_along(law, system.directions, pseudo.gains, residual, pseudo.variances)

    def condition(
        self,
        transition: Mixture,
        model: ReverseModel,
        prepared: SingularSystem,
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Law:
        """The reverse kernel, conditioned on the observation noised to s."""
        return self.condition_on(transition, prepared, s)


class PseudoInverse(MeanTwist):
    """N(y; A m(x_t), r_t^2 A A' + sigma_y^2 I) with r_t^2 = sigma_t^2 / (alpha_t^2 + sigma_t^2).

    The guiding density of PiGDM (Song et al. 2023, eq. 7): r_t^2 is the variance of x_0 given x_t
    for data of unit variance, which is what the paper assumes.
    """

    takes_exact: ClassVar[bool] = True

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless the observation is linear-Gaussian and decomposable."""
        require_singular(model, "twists.PseudoInverse")

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> SingularSystem:
        """The singular system of the operator."""
        return SingularSystem.of(model)

    def at(
        self,
        model: ReverseModel,
        prepared: SingularSystem,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
    ) -> Evaluation:
        """The guiding density of the denoised mean."""
        variances = guiding_variances(prepared, t)
        guiding = _PseudoObservation(prepared.observed, prepared.values, variances)
        return Evaluation(guiding.log_density(prepared, denoised), denoised)


def guiding_spread(level: Level) -> Float[Array, ""]:
    """PiGDM's r_t^2."""
    return level.sigma**2 / (level.alpha**2 + level.sigma**2)


def guiding_variances(system: SingularSystem, level: Level) -> Float[Array, " r"]:
    """Variances of the observation about that of the denoised mean, in singular coordinates."""
    return system.noise + guiding_spread(level) * system.values**2
