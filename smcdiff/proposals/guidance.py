"""Training-free guidance: DPS (Chung et al. 2023) and PiGDM (Song et al. 2023).

Both translate the draw of the reverse kernel by a multiple of a gradient through the denoiser.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import static
from smcdiff.diffusion.laws import Translated
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals._ending import end_exactly
from smcdiff.proposals.base import Draw, Weighed, unmoved
from smcdiff.twists import Evaluation, MeanTwist, PseudoInverse, Widened
from smcdiff.twists._singular import SingularSystem, require_singular, system_of
from smcdiff.twists.noised import guiding_spread, guiding_variances


class _Translated(Weighed):
    """A draw of the reverse kernel, translated by the detail of the evaluation."""

    def law(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Translated:
        """The translated kernel; where it has no density and is weighed, it is not translated."""
        transition = model.transition(x, evaluation.denoised, t, s)
        return Translated(transition, unmoved(model, s, evaluation.detail))


class DPS(_Translated):
    """Diffusion posterior sampling (Chung et al. 2023, algorithm 1).

    x_s <- x_s - scale * grad |y - A m(x_t)|, the norm in the units of y and of one particle alone:
    the paper's step zeta_t = scale / |y - A m(x_t)| on the squared norm. The noise of y does not
    enter. The paper's appendix D takes scale = 1 for FFHQ inpainting, super-resolution and
    deblurring, its code 0.3 to 0.5, both for data in [-1, 1] and 1,000 ancestral steps (eta = 1);
    fewer steps want a larger one. A may be any differentiable mean of a Gaussian observation. An
    exact observation is followed with weights off, and met only nearly.

    Heuristic with weights off. With weights on the target is the posterior.

    Cost: one network evaluation and one vector-Jacobian product per particle and step.

    Attributes:
        scale: zeta', in units of x over units of the norm.
        twist: by default `twists.Widened`.
    """

    scale: float = static(default=1.0)
    twist: MeanTwist = dataclasses.field(default=Widened(), kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if not self.scale > 0.0:
            raise InputError(f"DPS: scale is {self.scale}; it must be positive")

    def takes_exact(self, weighted: bool) -> bool:
        """With weights off."""
        return not weighted

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` where an observed site is not Gaussian."""
        super().check(model)
        model.problem.observe_gaussian()

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """What the twist of the weights needs."""
        return self.prepare_twist(key, model)

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The gradient of the misfit's norm, and the twist where weights are on."""
        denoised, pullback = jax.vjp(lambda x: model.denoise(x, t), x)

        def norm(denoised):
            misfit = model.problem.observe_gaussian(model.event(denoised)).misfit
            square = jnp.sum(misfit**2)
            return jnp.sqrt(jnp.where(square > 0.0, square, 1.0))

        (gradient,) = pullback(jax.grad(norm)(denoised))
        evaluation = self.weigh(model, prepared, x, denoised, t)
        return evaluation._replace(detail=-self.scale * gradient)


class _Prepared(NamedTuple):
    """The observation in singular coordinates, and what the twist prepared."""

    system: SingularSystem
    twist: Any


class PiGDM(_Translated):
    """Pseudo-inverse guided diffusion (Song et al. 2023, algorithm 1).

    x_s <- x_s + alpha_t r_t^2 g, where g is the gradient of log N(y; A m(x_t), r_t^2 A A' +
    sigma_y^2 I) with the covariance held fixed, and r_t^2 = sigma_t^2 / (alpha_t^2 + sigma_t^2):
    the variance of x_0 given x_t for data of unit variance, which is what the paper assumes (its
    sigma_t is ours over alpha_t). As sigma_y goes to zero r_t^2 g becomes the pseudo-inverse form,
    and for an exact observation the last step draws the reverse kernel given A x_0 = y instead.
    The paper takes DDIM steps with eta = 1 or less: pass ``kernel=kernels.DDIM(eta)``.

    Heuristic with weights off; with weights on the target is the posterior.

    Cost: one network evaluation and one vector-Jacobian product per particle and step; one
    decomposition of the operator per run.

    Attributes:
        twist: by default the guiding density, `twists.PseudoInverse`.
    """

    twist: MeanTwist = dataclasses.field(default=PseudoInverse(), kw_only=True)

    def takes_exact(self, weighted: bool) -> bool:
        """Where the twist does."""
        return self.twist.takes_exact or not weighted

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless the observation is linear-Gaussian."""
        require_singular(model, "PiGDM")
        super().check(model)

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> _Prepared:
        """The singular system of the operator, and the twist's."""
        twist = self.prepare_twist(key, model)
        return _Prepared(system_of(model, twist), twist)

    def evaluate(
        self, model: ReverseModel, prepared: _Prepared, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The gradient of the guiding density, and the twist where weights are on."""
        system = prepared.system
        denoised, pullback = jax.vjp(lambda x: model.denoise(x, t), x)
        weighted_misfit = system.misfit(denoised) / guiding_variances(system, t)
        (gradient,) = pullback(system.adjoint(weighted_misfit))
        evaluation = self.weigh(model, prepared.twist, x, denoised, t)
        return evaluation._replace(detail=t.alpha * guiding_spread(t) * gradient)

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
        """The translated draw."""
        plain = super().propose
        return end_exactly(plain, prepared.system, key, model, prepared, x, evaluation, t, s)
