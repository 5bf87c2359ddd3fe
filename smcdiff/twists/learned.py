"""A twist that was learned from pairs of the model: for likelihoods of which only values are known.

A network f(x_t, t, y) that tells which x_t of several an observation came from (van den Oord et al.
2018) is log p(y given x_t) up to a factor of y, which draws of x_T find: there the mean of psi is
the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.twists._mean_likelihood import log_mean_likelihood
from smcdiff.twists.base import Evaluation, MeanTwist

_NUM_STARTS = 256
"""Draws of x_T that find the factor of y."""


@runtime_checkable
class Contrast(Protocol):
    """What was trained on pairs (x_t, y): see `smcdiff.load_twist`."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of x_t."""
        ...

    @property
    def bound(self) -> float:
        """Of its values, either way, in nat."""
        ...

    def given(self, y: Array) -> Callable[[Array, Level], Array]:
        """Log psi_t of an observation at one event; ``InputError`` where y has another shape."""
        ...


class Logarithm(NamedTuple):
    """Log psi_t of the observation at hand.

    Attributes:
        contrast: of an event and a level.
        scale: what is added, so that psi has the mean of the likelihood.
    """

    contrast: Any
    scale: Float[Array, ""]


class Learned(MeanTwist):
    """psi_t of a network that was trained on simulated pairs (x_t, y) of the model.

    It needs no derivative of the likelihood and none of the denoiser, so that a black box will do;
    the pairs take the place of both. The weights are consistent whatever the network learned, for
    psi_0 is the declared likelihood. The network's values lie between ``-bound`` and ``bound``, so
    that no weight changes by more than ``2 bound`` nat because it is wrong, and a tilt towards its
    largest value is no longer than Polyak's step. (What it learns from batches of N pairs are
    differences of little more than log N nat.)

    Cost: the network and its gradient; and once per run 1,024 evaluations of the likelihood.

    Attributes:
        network: what `smcdiff train twist` learned; `smcdiff.load_twist` gives the twist.
    """

    network: Contrast
    uses_denoised: ClassVar[bool] = False

    def __post_init__(self):
        if not isinstance(self.network, Contrast):
            raise InputError(
                f"twists.Learned: the network is {self.network!r}; smcdiff.load_twist(folder) gives"
                " the twist of a folder"
            )

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless observation and event have the network's shapes."""
        problem = model.problem
        if self.network.event_shape != problem.event_shape:
            raise InputError(
                f"the twist was trained for events of shape {self.network.event_shape}, and site"
                f" '{problem.site}' has {problem.event_shape}; train one with `smcdiff train twist`"
            )
        self.network.given(the_observation("the learned twist", model))

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Logarithm:
        """The network given the observation, and its scale."""
        contrast = self.network.given(the_observation("the learned twist", model))
        terminal = model.problem.prior.terminal()
        starts = jax.vmap(terminal.sample)(jax.random.split(key, _NUM_STARTS))
        values = jax.vmap(lambda x: contrast(model.event(x), model.first))(starts)
        mean, likelihood = (
            logsumexp(values) - math.log(_NUM_STARTS),
            log_mean_likelihood(key, model),
        )
        likelihood = jnp.where(jnp.isfinite(likelihood), likelihood, 0.0)
        return Logarithm(contrast, likelihood - mean)

    def at(
        self,
        model: ReverseModel,
        prepared: Logarithm,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
    ) -> Evaluation:
        """The network's value; its detail is the room."""
        value = prepared.contrast(model.event(x), t)
        return Evaluation(value + prepared.scale, denoised, self.network.bound - value)

    def room(self, evaluation: Evaluation) -> Float[Array, ""]:
        """How far the network lies below its bound."""
        return evaluation.detail


def the_observation(what: str, model: ReverseModel) -> Array:
    """The value of the one observed site.

    Args:
        what: was trained on one, for the message.
        model: the reverse model.

    Raises:
        InputError: several observed sites, or none but factors.
    """
    values = model.problem.observe().values
    if len(values) != 1:
        raise InputError(
            f"the model observes the sites {sorted(values)}; {what} was trained on one"
        )
    (y,) = values.values()
    return y
