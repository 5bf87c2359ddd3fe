"""Twisted diffusion sampling (Wu et al. 2023), and classifier guidance: the kernel tilted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import set_fields
from smcdiff.diffusion.kernels import bridge
from smcdiff.diffusion.laws import Tilted
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals.base import Steered
from smcdiff.twists import Classifier, Evaluation, Krylov, Twist, Widened


class _Slope(NamedTuple):
    """The gradient of the log twist, and how far it lies below its largest value."""

    gradient: Float[Array, " d"]
    room: Float[Array, ""]


class Twisted(Steered):
    """Twisted diffusion sampler, TDS (Wu et al. 2023, algorithm 1).

    The reverse kernel is tilted by exp(x_s . grad log psi_t(x_t)), which moves the mean of a
    Gaussian kernel by its variance times the gradient. The published twist p(y given m(x_t)),
    ``twists.Likelihood()``, is far too sure at high noise; the default is made as unsure as x_0
    given x_t is wide. The tilt is no longer than Polyak's step: where the operator's rows overlap,
    as a blur's do, the twist is surer than its rows, and the whole gradient would lead farther away
    from level to level.

    Consistent. Cost: one network evaluation and one vector-Jacobian product per particle and step
    with the default twist; any twist with a gradient will do.

    Attributes:
        twist: by default `twists.Widened`.
    """

    twist: Twist = dataclasses.field(default=Widened(), kw_only=True)

    def takes_exact(self, weighted: bool) -> bool:
        """Never: the draw is not held to the observation."""
        return False

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The twist, with its gradient from the same evaluation."""

        def log_twist(x):
            evaluation = self.twist.evaluate(model, prepared, x, t)
            return evaluation.log_twist, evaluation

        (_, evaluation), gradient = jax.value_and_grad(log_twist, has_aux=True)(x)
        return evaluation._replace(detail=_Slope(gradient, self.twist.room(evaluation)))

    def law(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Tilted:
        """The tilted reverse kernel."""
        transition = model.transition(x, evaluation.denoised, t, s)
        return Tilted.of(transition, evaluation.detail.gradient, evaluation.detail.room)


class ClassifierGuidance(Twisted):
    """Classifier guidance (Dhariwal and Nichol 2021, algorithm 1; Song et al. 2021, eq. 14).

    `Twisted` with p_phi(y given x_t)^omega of a noise-conditional classifier as twist. With weights
    off this is the published sampler; the density that it draws from is nobody's. With weights on
    the target is what the model declares. For "prior times classifier to the power omega" declare
    the classifier at t = 0 as the likelihood,

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
        set_fields(self, twist=Classifier(log_prob, strength))


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
