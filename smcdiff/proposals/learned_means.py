"""Draws around a learned conditional mean: classifier-free guidance, and amortised networks.

With weights on, the target is what the NumPyro model declares: the learned mean only says where to
look.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.laws import Tilted, Translated
from smcdiff.diffusion.schedules import Level
from smcdiff.diffusion.thresholding import Threshold
from smcdiff.errors import InputError
from smcdiff.priors import Prior
from smcdiff.problem import ReverseModel
from smcdiff.proposals.base import Weighed, unmoved
from smcdiff.twists import Evaluation, Flat, MeanTwist
from smcdiff.twists.classifier import require_schedule


def _require_same_process(name: str, conditional: Prior, model: ReverseModel) -> None:
    """Raises ``InputError`` unless the conditional prior has the site's shape and schedule."""
    problem = model.problem
    if conditional.event_shape != problem.event_shape:
        raise InputError(
            f"{name}: the conditional prior has events of shape {conditional.event_shape}, site"
            f" '{problem.site}' of shape {problem.event_shape}"
        )
    require_schedule(f"conditional prior of {name}", conditional.schedule, model)


class _GuidedMean(Weighed):
    """A draw around a guided denoised mean, which is the detail of the evaluation."""

    def law(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Tilted | Translated:
        """The kernel around the guided mean; an exact kernel is tilted to the same effect."""
        plain, guided = evaluation.denoised, evaluation.detail
        transition = model.transition(x, plain, t, s)
        if not model.kernel.uses_denoised:
            return Tilted.of(transition, t.alpha / t.sigma**2 * (guided - plain))
        shift = model.transition(x, guided, t, s).mean - transition.mean
        return Translated(transition, unmoved(model, s, shift))


class ClassifierFree(_GuidedMean):
    """Classifier-free guidance (Ho and Salimans 2022, eq. 6).

    The kernel's denoised mean is m(x) + omega (m(x, y) - m(x)), so that omega = 1 draws from the
    conditional prior and omega = 0 ignores the condition (the paper's w is omega - 1). An exact
    kernel, which uses no denoised mean, is tilted by omega (s(x, y) - s(x)) instead.

    With weights off this is the published sampler. With weights on the target is what the model
    declares. Consistent. The last step of a kernel that ends in a Dirac has no density, so there
    weighted draws are not guided.

    Cost: two network evaluations per particle and step, and the twist's own, if any.

    Attributes:
        conditional: the prior given the condition, on the schedule of the model's prior; for a
            class-conditional network ``prior.given(label)``.
        strength: omega.
        threshold: for the guided mean, see `smcdiff.thresholding`; with weights on it changes
            where draws are looked for, and not the target. Its bound must contain the data: what
            lies beyond is hardly ever drawn, and then missing from the evidence.
        twist: by default none: the observation is weighed once, at the end.
            ``twists.Classifier(log_prob, strength)`` weighs on the way.
    """

    conditional: Prior
    strength: Float[Array, ""] | float = 1.0
    threshold: Threshold | None = dataclasses.field(default=None, kw_only=True)
    twist: MeanTwist = dataclasses.field(default=Flat(), kw_only=True)

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` where the conditional prior does not fit the model's."""
        _require_same_process("ClassifierFree", self.conditional, model)
        super().check(model)

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """As the twist."""
        return self.prepare_twist(key, model)

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """Both denoised means, and the twist if there is one."""
        plain = model.denoise(x, t)
        given = jnp.ravel(self.conditional.denoise(model.event(x), t.time))
        guided = plain + self.strength * (given - plain)
        if self.threshold is not None:
            guided = jnp.ravel(self.threshold(model.event(guided)))
        return self.weigh(model, prepared, x, plain, t)._replace(detail=guided)


@runtime_checkable
class Conditional(Protocol):
    """What learns p(x_0 given y) for every y: see `smcdiff.load_conditional`."""

    def given(self, y: Array) -> Prior:
        """The diffusion prior given an observation; ``InputError`` where y has another shape."""
        ...


class _Prepared(NamedTuple):
    """The network given the observation, and what the twist prepared."""

    prior: Prior
    twist: Any


class Amortized(_GuidedMean):
    """Draws from a conditional network s(x_t, y, t) (Batzolis et al. 2021, section 3).

    The network was trained on pairs (x_0, y) of the same model (``smcdiff train amortized``), so
    no likelihood enters: with weights off the draws are as good as the training and no better, and
    change with nothing in the model but y. With weights on it is a proposal like any other: the
    target is what the model declares, and the network's bias is corrected. Consistent.

    Cost: two network evaluations per particle and step, with weights off one (not with
    `smcdiff.kernels.Exact`).

    Attributes:
        network: the conditional network.
        twist: by default none: the observation is weighed once, at the end.
    """

    network: Conditional
    twist: MeanTwist = dataclasses.field(default=Flat(), kw_only=True)

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless observation, event and noise schedule are the network's."""
        _require_same_process("Amortized", self._given(model), model)
        super().check(model)

    def _given(self, model: ReverseModel) -> Prior:
        """The network, given the observation."""
        return self.network.given(model.problem.sole_observation("the network of Amortized"))

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> _Prepared:
        """The network, given the observation, and the twist's."""
        return _Prepared(self._given(model), self.prepare_twist(key, model))

    def evaluate(
        self, model: ReverseModel, prepared: _Prepared, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The conditional mean, and the prior's where weights or an exact kernel compare them."""
        given = jnp.ravel(prepared.prior.denoise(model.event(x), t.time))
        compared = model.weighted or not model.kernel.uses_denoised
        plain = model.denoise(x, t) if compared else given
        return self.weigh(model, prepared.twist, x, plain, t)._replace(detail=given)
