"""Running a NumPyro model for its sites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.primitives import Messenger

from smcdiff.errors import InputError
from smcdiff.problem import _lock as lock
from smcdiff.problem._sites import Site, is_diffusion, unwrap


class _FixDiffusionSite(Messenger):
    """Gives the diffusion site a value, so that tracing never runs the reverse process."""

    def __init__(self, fn: Any = None, value: Float[Array, "*event"] | None = None):
        self.value = value
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
            return
        if msg["value"] is not None:  # a handler inside the model came first
            raise InputError(
                f"site '{name}' has a diffusion prior but its value is already set by a handler;"
                " remove handlers.substitute or condition from that site"
            )
        shape = fn.batch_shape + fn.event_shape
        msg["value"] = jnp.zeros(shape) if self.value is None else self.value


def trace(
    model: Callable, args: tuple, kwargs: dict, x: Float[Array, "*event"] | None = None
) -> dict[str, Site]:
    """The sites of one run of a model, without NumPyro's own validation: ours names the site.

    Args:
        model: a NumPyro model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        x: value of the diffusion site; None is zeros.

    Returns:
        Sites by name.
    """
    with lock.NUMPYRO, numpyro.validation_enabled(False):
        fixed = _FixDiffusionSite(handlers.seed(model, jax.random.key(0)), x)
        return handlers.trace(fixed).get_trace(*args, **kwargs)
