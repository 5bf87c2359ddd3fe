"""Guidance by learned conditional models: classifier guidance and classifier-free guidance.

With weights on, the target is what the NumPyro model declares: guidance only says where to look.
For "prior times classifier to the power omega" declare the classifier at t = 0 as the likelihood,

    with numpyro.handlers.scale(scale=omega):
        numpyro.sample("class", dist.Categorical(logits=classifier(x, 0.0)), obs=label)

and guide with the same strength.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import portable, set_fields
from smcdiff.diffusion.schedules import Schedule
from smcdiff.errors import InputError, first_line
from smcdiff.priors.base import DiffusionDistribution
from smcdiff.proposals.base import Proposal, ReverseModel


class ClassifierGuidance(Proposal):
    """Classifier guidance (Dhariwal and Nichol 2021, algorithm 1; Song et al. 2021, eq. 14).

    The reverse kernel is tilted by exp(x_s . omega grad log p_phi(y given x_t)): the mean of a
    Gaussian kernel moves by its variance times the gradient, taken at x_t. With weights off this is
    the published sampler; the density that it draws from is nobody's. With weights on the twist is
    p_phi(y given x_t)^omega and the target what the model declares. Consistent; the better the
    classifier at high noise, the larger the ESS.

    Cost: one network evaluation and one of the classifier with its gradient a particle and step.

    Attributes:
        log_prob: ``log_prob(x, t)``, log p_phi(y given x_t = x) of the observation at hand, for one
            event x and a scalar t in the schedule's time; a pytree (its arrays then enter jit as
            arguments, a class label among them) or a plain function. Where it has a ``schedule``
            (those of `smcdiff.load_classifier` do) that is checked against the prior's.
        strength: omega; 1 is Bayes' rule.
    """

    log_prob: Callable
    strength: Float[Array, ""] | float = 1.0

    def __post_init__(self):
        set_fields(self, log_prob=portable(self.log_prob))

    def check(self, model):
        """Raises ``InputError`` where log_prob gives no number or has another noise schedule."""
        _check_log_prob("ClassifierGuidance", self.log_prob, model)
        if hasattr(self.log_prob, "schedule"):
            _require_schedule("ClassifierGuidance", "classifier", self.log_prob.schedule, model)

    def guide(self, model, shared, x, step):
        """The classifier's log probability and its gradient; the kernel's denoised mean."""
        t = model.level(step)

        def twist(x):
            return self.strength * self.log_prob(model.event(x), t.time)

        value, gradient = jax.value_and_grad(twist)(x)
        return value, (model.denoise_for_kernel(x, t), gradient)

    def law(self, model, shared, x, guide, step):
        """The tilted reverse kernel."""
        denoised, gradient = guide
        return model.transition(x, denoised, step).tilted(gradient)


def require_same_process(
    name: str, conditional: DiffusionDistribution, model: ReverseModel
) -> None:
    """Raises ``InputError`` unless the conditional prior has the site's shape and schedule."""
    problem = model.problem
    if conditional.event_shape != problem.event_shape:
        raise InputError(
            f"{name}: the conditional prior has events of shape {conditional.event_shape}, site"
            f" '{problem.site}' of shape {problem.event_shape}"
        )
    _require_schedule(name, "conditional prior", conditional.schedule, model)


def _require_schedule(name: str, what: str, schedule: Schedule, model: ReverseModel) -> None:
    problem, times = model.problem, model.levels.time[:-1]
    levels = [s.log_snr(times) for s in (schedule, problem.prior.schedule)]
    if not jnp.allclose(levels[0], levels[1], rtol=1e-3, atol=1e-3):
        raise InputError(
            f"{name}: the {what} has another noise schedule than site '{problem.site}'; both must"
            " share one"
        )


class Means(NamedTuple):
    """The denoised mean without the condition, and with it at the given strength."""

    plain: Float[Array, " d"]
    guided: Float[Array, " d"]


class GuidedMean(Proposal):
    """A draw around a guided denoised mean, where ``guide`` carries `Means`."""

    def propose(self, key, model: ReverseModel, shared, x, guide: Means, step):
        """The draw around the guided mean; an exact kernel is tilted to the same effect."""
        transition = model.transition(x, guide.plain, step)
        if not model.kernel.uses_denoised:
            t = model.level(step)
            law = transition.tilted(t.alpha / t.sigma**2 * (guide.guided - guide.plain))
            moved = law.sample(key)
            return moved, law.log_ratio(moved)
        frozen = model.no_density(step)
        shift = model.transition(x, guide.guided, step).mean - transition.mean
        moved, log_ratio = transition.sample_shifted(key, jnp.where(frozen, 0.0, shift))
        return moved, jnp.where(frozen, 0.0, log_ratio)


class ClassifierFree(GuidedMean):
    """Classifier-free guidance (Ho and Salimans 2022, eq. 6).

    The kernel's denoised mean is m(x) + omega (m(x, y) - m(x)), so that omega = 1 draws from the
    conditional prior and omega = 0 ignores the condition (the paper's w is omega - 1). An exact
    kernel, which uses no denoised mean, is tilted by omega (s(x, y) - s(x)) instead.

    With weights off this is the published sampler. With weights on the target is what the model
    declares, and the twist is ``log_prob`` where it is given; without one the observation is
    weighed once, at the end. Consistent. The last step of a kernel that ends in a Dirac has no
    density, so there weighted draws are not guided.

    Cost: two network evaluations a particle and step, and one of ``log_prob``, if any.

    Attributes:
        conditional: the prior given the condition, on the schedule of the model's prior; for a
            class-conditional network ``prior.given(label)``.
        strength: omega.
        log_prob: ``log_prob(x, t)``, log p(y given x_t = x) as in `ClassifierGuidance`, or None.
    """

    conditional: DiffusionDistribution
    strength: Float[Array, ""] | float = 1.0
    log_prob: Callable | None = None

    def __post_init__(self):
        if self.log_prob is not None:
            set_fields(self, log_prob=portable(self.log_prob))

    def check(self, model):
        """Raises ``InputError`` where the conditional prior does not fit the model's."""
        require_same_process("ClassifierFree", self.conditional, model)
        if self.log_prob is not None:
            _check_log_prob("ClassifierFree", self.log_prob, model)

    def guide(self, model, shared, x, step):
        """Both denoised means, and the twist if there is one."""
        t = model.level(step)
        plain = model.denoise(x, t)
        given = jnp.ravel(self.conditional.denoise(model.event(x), t.time))
        means = Means(plain, plain + self.strength * (given - plain))
        if self.log_prob is None or not model.weighted:
            return jnp.zeros(()), means
        return self.strength * self.log_prob(model.event(x), t.time), means


def _check_log_prob(name: str, log_prob: Callable, model: ReverseModel) -> None:
    event = jax.ShapeDtypeStruct(model.problem.event_shape, jnp.result_type(float))
    time = jax.ShapeDtypeStruct((), event.dtype)
    try:
        shape = jax.eval_shape(log_prob, event, time).shape
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: log_prob(x, t) fails on x of shape {event.shape}: {first_line(error)}"
        ) from error
    if shape != ():
        raise InputError(
            f"{name}: log_prob(x, t) returns shape {shape}; it must return one number for an event"
        )
