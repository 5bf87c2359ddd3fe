"""A learned twist: a classifier of noisy events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import portable, set_fields
from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.errors import InputError, first_line
from smcdiff.problem import ReverseModel
from smcdiff.twists.base import Evaluation, MeanTwist


@runtime_checkable
class Scheduled(Protocol):
    """What was trained on a noise schedule, and says which."""

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        ...


class Classifier(MeanTwist):
    """psi_t = p_phi(y given x_t)^strength of a noise-conditional classifier.

    Attributes:
        log_prob: ``log_prob(x, t)``, log p_phi(y given x_t = x) of the observation at hand, for one
            event x and a scalar t in the schedule's time: any callable. Where it has a
            ``schedule`` (those of `smcdiff.load_classifier` do) that is checked against the
            prior's.
        strength: omega; 1 is Bayes' rule.
    """

    log_prob: Callable
    strength: Float[Array, ""] | float = 1.0
    uses_denoised: ClassVar[bool] = False

    def __post_init__(self):
        set_fields(self, log_prob=portable(self.log_prob))

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` where log_prob gives no number or has another noise schedule."""
        event = jax.ShapeDtypeStruct(model.problem.event_shape, jnp.result_type(float))
        time = jax.ShapeDtypeStruct((), event.dtype)
        try:
            shape = jax.eval_shape(lambda x, t: self.log_prob(x, t), event, time).shape
        except (TypeError, ValueError) as error:
            raise InputError(
                f"classifier: log_prob(x, t) fails on x of shape {event.shape}: {first_line(error)}"
            ) from error
        if shape != ():
            raise InputError(
                f"classifier: log_prob(x, t) returns shape {shape}; it must return one number for"
                " an event"
            )
        if isinstance(self.log_prob, Scheduled):
            require_schedule("classifier", self.log_prob.schedule, model)

    def at(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
    ) -> Evaluation:
        """The classifier's log probability."""
        return Evaluation(self.strength * self.log_prob(model.event(x), t.time), denoised)


def require_schedule(what: str, schedule: Schedule, model: ReverseModel) -> None:
    """Raises ``InputError`` unless a learned model has the noise schedule of the prior.

    Args:
        what: the learned model, for the message.
        schedule: its schedule.
        model: the reverse model.
    """
    problem, times = model.problem, model.levels.time[:-1]
    found, own = (s.level(times).log_snr for s in (schedule, problem.prior.schedule))
    if not jnp.allclose(found, own, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"the {what} has another noise schedule than site '{problem.site}'; both must share one"
        )
