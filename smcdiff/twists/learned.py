"""A twist that was learned from pairs of the model: for likelihoods of which only values are known.

A network f(x_t, t, y) that tells which x_t of several an observation came from (van den Oord et al.
2018) is log p(y given x_t) up to a constant. As the mean of p(y given x_t) over the prior's x_t is
p(y) at every level, draws of the prior find it, and

    psi_t(x_t) = Z (exp f(x_t, t, y) / mean_j exp f(x_t^j, t, y) + floor),

where Z is the mean likelihood under the prior. So the network can only move weight from some of
what the prior draws to other of it, and nothing is ever less than ``floor`` of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import static
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.twists._mean_likelihood import log_mean_likelihood
from smcdiff.twists.base import Evaluation, MeanTwist


@runtime_checkable
class Contrast(Protocol):
    """What was trained on pairs (x_t, y): see `smcdiff.load_twist`."""

    @property
    def events(self) -> Float[Array, " n *event"]:
        """Some draws of the prior."""
        ...

    @property
    def bound(self) -> float:
        """Of its values, either way, in nat."""
        ...

    def given(self, y: Array) -> Callable[[Array, Level], Array]:
        """Log psi_t of an observation at one event; ``InputError`` where y has another shape."""
        ...


class Prepared(NamedTuple):
    """The network at the observation at hand, and its means.

    Attributes:
        contrast: f, of an event and a level.
        log_means: (num_steps,) of exp f over draws of the prior, by level.
        log_snr: (num_steps,) of those levels.
        log_likelihood: log Z.
    """

    contrast: Any
    log_means: Float[Array, " steps"]
    log_snr: Float[Array, " steps"]
    log_likelihood: Float[Array, ""]


class Learned(MeanTwist):
    """psi_t of a network that was trained on simulated pairs (x_t, y) of the model; see the module.

    It needs no derivative of the likelihood and none of the denoiser, so that a black box will do:
    values of the likelihood are enough. The weights are consistent whatever the network learned,
    for psi_0 is the declared likelihood. A network that is wrong, untrained or far from what it was
    trained on gives no weight that is infinite: its values are bounded (by 12 nat either way, while
    batches of N pairs teach differences of little more than log N), their mean over the prior is
    that of the likelihood, and there is a floor. A tilt is no longer than Polyak's step towards the
    bound.

    Cost: the network, with `proposals.Twisted` its gradient; once per chain up to 256 evaluations
    of the network per level and 1,024 of the likelihood.

    Attributes:
        network: what `smcdiff train twist` learned; `smcdiff.load_twist` gives the twist.
        floor: of psi_t, as a multiple of its mean; 0 is none.
    """

    network: Contrast
    floor: float = static(default=0.1, kw_only=True)
    uses_denoised: ClassVar[bool] = False

    def __post_init__(self):
        if not isinstance(self.network, Contrast):
            raise InputError(
                f"twists.Learned: the network is {self.network!r}; smcdiff.load_twist(folder) gives"
                " the twist of a folder"
            )
        if not 0.0 <= self.floor < math.inf:
            raise InputError(f"twists.Learned: floor is {self.floor}; it must be 0 or positive")

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless observation and event have the network's shapes."""
        problem = model.problem
        shape = self.network.events.shape[1:]
        if shape != problem.event_shape:
            raise InputError(
                f"the twist was trained for events of shape {shape}, and site '{problem.site}' has"
                f" {problem.event_shape}; train one with `smcdiff train twist`"
            )
        self.network.given(model.problem.sole_observation("the learned twist"))

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Prepared:
        """The network given the observation, and its means."""
        contrast = self.network.given(model.problem.sole_observation("the learned twist"))
        events = self.network.events
        noise = jax.random.normal(key, events.shape)

        def log_mean(t):
            values = jax.vmap(lambda x: contrast(x, t))(t.alpha * events + t.sigma * noise)
            return logsumexp(values) - math.log(len(events))

        levels = jax.tree.map(lambda field: field[:-1], model.levels)
        likelihood = log_mean_likelihood(key, model)
        likelihood = jnp.where(jnp.isfinite(likelihood), likelihood, 0.0)
        return Prepared(contrast, jax.lax.map(log_mean, levels), levels.log_snr, likelihood)

    def at(
        self,
        model: ReverseModel,
        prepared: Prepared,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
    ) -> Evaluation:
        """The network's value, over its mean; its detail is the room."""
        mean = jnp.interp(t.log_snr, prepared.log_snr, prepared.log_means)
        value = self._with_floor(prepared.contrast(model.event(x), t) - mean)
        room = self._with_floor(self.network.bound - mean) - value
        return Evaluation(value + prepared.log_likelihood, denoised, room)

    def _with_floor(self, log_ratio: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.logaddexp(log_ratio, math.log(self.floor)) if self.floor else log_ratio

    def room(self, evaluation: Evaluation) -> Float[Array, ""]:
        """How far psi_t lies below its bound."""
        return evaluation.detail
