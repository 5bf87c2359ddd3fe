"""Twisted diffusion sampling (Wu et al. 2023), and classifier guidance: the kernel tilted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import set_fields, static
from smcdiff.diffusion.kernels import bridge
from smcdiff.diffusion.laws import Defended, Tilted
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals.base import Steered
from smcdiff.twists import Classifier, Evaluation, Krylov, Twist, Widened
from smcdiff.twists._mean_likelihood import log_mean_likelihood

_FLOOR = 0.1
"""Of a twist, as a multiple of the mean likelihood under the prior."""


class _Prepared(NamedTuple):
    """What the twist prepares, and the log of its floor where it has one."""

    twist: Any
    log_floor: Float[Array, ""] | None


class _Slope(NamedTuple):
    """What the draw needs of the twist.

    Attributes:
        gradient: of its logarithm, without the floor.
        room: how far it lies below its largest value.
        log_shares: of the twist and of its floor in their sum; None where there is no floor.
    """

    gradient: Float[Array, " d"]
    room: Float[Array, ""]
    log_shares: tuple[Float[Array, ""], Float[Array, ""]] | None


class Twisted(Steered):
    """Twisted diffusion sampler, TDS (Wu et al. 2023, algorithm 1).

    The reverse kernel is tilted by exp(x_s . grad log psi_t(x_t)), which moves the mean of a
    Gaussian kernel by its variance times the gradient. The published twist p(y given m(x_t)),
    ``twists.Likelihood()``, is far too sure at high noise; the default is made as unsure as x_0
    given x_t is wide. The tilt is no longer than Polyak's step: where the operator's rows overlap,
    as a blur's do, the twist is surer than its rows, and the whole gradient would lead farther away
    from level to level.

    Where the observation is not linear-Gaussian and draws are weighed, no twist is right
    everywhere: one that looks at the likelihood about m(x_t) does not see a second solution. So
    psi_t is the twist plus a ``floor`` times the mean likelihood of draws of the prior, and the
    draw is of the tilted kernel and the reverse kernel in these proportions (a defensive mixture,
    Hesterberg 1995): particles that the twist thinks impossible are followed, and no weight is
    large.

    Consistent. Cost: one network evaluation and one vector-Jacobian product per particle and step
    with the default twist; any twist with a gradient will do. The floor costs 1,024 evaluations of
    the likelihood per chain, once.

    Attributes:
        twist: by default `twists.Widened`.
        floor: of the twist, as a multiple of the mean likelihood under the prior; 0 is none.
    """

    twist: Twist = dataclasses.field(default=Widened(), kw_only=True)
    floor: float = static(default=_FLOOR, kw_only=True)

    def __post_init__(self):
        if not 0.0 <= self.floor < math.inf:
            raise InputError(f"Twisted: floor is {self.floor}; it must be 0 or positive")

    def takes_exact(self, weighted: bool) -> bool:
        """Never: the draw is not held to the observation."""
        return False

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> _Prepared:
        """What the twist prepares, and its floor."""
        has_floor = self.floor > 0.0 and model.weighted and not model.problem.is_linear
        log_floor = log_mean_likelihood(key, model) + math.log(self.floor) if has_floor else None
        return _Prepared(self.twist.prepare(key, model), log_floor)

    def adapt(self, model: ReverseModel, prepared: _Prepared) -> _Prepared:
        """As the twist; the floor stays, being the mean over all values of the parameters."""
        return prepared._replace(twist=self.twist.adapt(model, prepared.twist))

    def evaluate(
        self, model: ReverseModel, prepared: _Prepared, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The twist, with its gradient from the same evaluation."""

        def log_twist(x):
            evaluation = self.twist.evaluate(model, prepared.twist, x, t)
            return evaluation.log_twist, evaluation

        (value, evaluation), gradient = jax.value_and_grad(log_twist, has_aux=True)(x)
        room, log_floor = self.twist.room(evaluation), prepared.log_floor
        if log_floor is None:
            return evaluation._replace(detail=_Slope(gradient, room, None))
        total = jnp.logaddexp(value, log_floor)
        slope = _Slope(gradient, room, (value - total, log_floor - total))
        return evaluation._replace(log_twist=total, detail=slope)

    def widened_by(
        self, model: ReverseModel, prepared: _Prepared, t: Level
    ) -> Float[Array, " m"] | None:
        """As the twist, where it has no floor."""
        if prepared.log_floor is not None:
            return None
        return self.twist.widened_by(model, prepared.twist, t)

    def log_twist(
        self, model: ReverseModel, prepared: _Prepared, x: Float[Array, " d"], t: Level
    ) -> Float[Array, ""]:
        """The twist and its floor, without the gradient."""
        value = self.twist.evaluate(model, prepared.twist, x, t).log_twist
        return value if prepared.log_floor is None else jnp.logaddexp(value, prepared.log_floor)

    def law(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Tilted | Defended:
        """The tilted reverse kernel, and where the twist has a floor the kernel itself."""
        transition = model.transition(x, evaluation.denoised, t, s)
        slope = evaluation.detail
        tilted = Tilted.of(transition, slope.gradient, slope.room)
        shares = slope.log_shares
        return tilted if shares is None else Defended(tilted, transition, shares)


class ClassifierGuidance(Twisted):
    """Classifier guidance (Dhariwal and Nichol 2021, algorithm 1; Song et al. 2021, eq. 14).

    `Twisted` with p_phi(y given x_t)^omega of a noise-conditional classifier as twist. With weights
    off this is the published sampler; the density that it draws from is nobody's. With weights on
    the target is what the model declares, and the twist has the floor of `Twisted`. For "prior
    times classifier to the power omega" declare the classifier at t = 0 as the likelihood,

        with numpyro.handlers.scale(scale=omega):
            numpyro.sample("class", dist.Categorical(logits=classifier(x, 0.0)), obs=label)

    and guide with the same strength. Consistent; the better the classifier at high noise, the
    larger the ESS.

    Cost: one network evaluation and one of the classifier with its gradient per particle and step.

    Args:
        log_prob: ``log_prob(x, t)``, see `twists.Classifier`.
        strength: omega; 1 is Bayes' rule.
    """

    def __init__(self, log_prob: Callable, strength: Float[Array, ""] | float = 1.0):
        """See the class."""
        set_fields(self, twist=Classifier(log_prob, strength), floor=_FLOOR)


class KrylovMomentMatched(Steered):
    """`MomentMatched` for many observations, learned priors included (Rozet et al. 2024).

    The reverse kernel is tilted to the mean of x_0 given x_t and y, as the twist has it.

    Consistent: any function of x_t makes consistent weights if numerator and denominator are the
    same one, so a small space costs efficiency and nothing else. Cost: one network evaluation and
    ``twist.size`` vector-Jacobian products per particle and step.

    Attributes:
        twist: `twists.Krylov`.
    """

    twist: Krylov = dataclasses.field(default=Krylov(), kw_only=True)

    def law(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Tilted:
        """The reverse kernel, tilted so that its mean follows the observation."""
        _, on_clean, _ = bridge(t, s)
        transition = model.transition(x, evaluation.denoised, t, s)
        variance = transition.mean_variance
        tilt = jnp.where(variance > 0.0, on_clean / jnp.where(variance > 0, variance, 1.0), 0.0)
        return Tilted.of(transition, tilt * evaluation.detail)
