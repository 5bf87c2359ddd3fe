"""Running a NumPyro model for its sites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger

from smcdiff.errors import InputError
from smcdiff.priors import Prior
from smcdiff.problem import _lock as lock
from smcdiff.problem._sites import Site, is_diffusion, unwrap


class _FixLatents(Messenger):
    """Gives diffusion sites their values, so that tracing never runs the reverse process.

    Unknown parameters get theirs, or are drawn from their prior by the seed where none is given.
    """

    def __init__(
        self,
        fn: Any = None,
        values: dict[str, Array] | None = None,
        parameters: dict[str, Array] | None = None,
        guesses: bool = False,
    ):
        self.values, self.parameters, self.guesses = values or {}, parameters or {}, guesses
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Sets the value, and refuses what a trace would hide."""
        if msg["type"] == "prng_key":
            raise InputError(
                "the model draws random numbers with numpyro.prng_key(), which a likelihood cannot"
                " do: one draw would be frozen; sample them at a site, or pass them as arguments"
            )
        if msg["type"] != "sample" or msg["is_observed"]:
            return
        name, fn = msg["name"], msg["fn"]
        base = unwrap(fn)
        if isinstance(base, dist.TransformedDistribution) and is_diffusion(base.base_dist):
            raise InputError(
                f"site '{name}': a transformed diffusion prior is not supported; sample the prior"
                " itself and transform the value in the model"
            )
        if not is_diffusion(fn):
            if msg["value"] is not None:  # handlers.substitute says that it is known
                msg["type"] = "deterministic"
            elif name in self.parameters:
                msg["value"] = biject_to(fn.support)(self.parameters[name])
            elif isinstance(base, dist.ImproperUniform):  # which cannot be sampled
                raise InputError(
                    f"site '{name}' has an improper prior, from which no particle can start and"
                    " which has no evidence; give it a proper one, wide if need be"
                )
            return
        if msg["value"] is not None:  # a handler inside the model came first
            raise InputError(
                f"site '{name}' has a diffusion prior but its value is already set by a handler;"
                " remove handlers.substitute or condition from that site"
            )
        value = self.values.get(name)
        if value is None and self.guesses:
            value = _of_noise(cast(Prior, base))
        msg["value"] = jnp.zeros(fn.batch_shape + fn.event_shape) if value is None else value


def _of_noise(prior: Prior) -> Float[Array, "*event"]:
    """What the prior takes for x_0 where it sees nothing but noise: one network evaluation."""
    start = prior.terminal().mean.reshape(prior.event_shape)
    return prior.denoise(start, prior.schedule.t_max)


def trace(
    model: Callable,
    args: tuple,
    kwargs: dict,
    values: dict[str, Array] | None = None,
    parameters: dict[str, Array] | None = None,
    key: PRNGKeyArray | None = None,
    guesses: bool = False,
) -> dict[str, Site]:
    """The sites of one run of a model, without NumPyro's own validation: ours names the site.

    Args:
        model: a NumPyro model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        values: of diffusion sites; zeros for those that have none, unless ``guesses``.
        parameters: unconstrained values of other latent sites; those that have none are drawn.
        key: random key to draw with; None is a fixed one.
        guesses: in place of zeros take what the prior of a site makes of noise; for single events.

    Returns:
        Sites by name.
    """
    with lock.NUMPYRO, numpyro.validation_enabled(False):
        seeded = handlers.seed(model, jax.random.key(0) if key is None else key)
        fixed = _FixLatents(seeded, values, parameters, guesses)
        return handlers.trace(fixed).get_trace(*args, **kwargs)
