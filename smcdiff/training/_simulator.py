"""What networks learn from that see observations: pairs (x_0, y) that a NumPyro model draws."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers

from smcdiff.diffusion import flow
from smcdiff.errors import InputError, first_line
from smcdiff.priors import Prior
from smcdiff.problem import _sites as sites
from smcdiff.problem._tracing import trace as trace_model
from smcdiff.training._data import batch_indices, check_count, load_images, split
from smcdiff.training._statistics import clean_events
from smcdiff.training.config import TrainConfig

_POOL = 4096
"""Draws of the prior, made once where there are no images."""


@dataclasses.dataclass(frozen=True)
class Simulator:
    """The observation that a NumPyro model draws for an event.

    Attributes:
        model: the model, callable without arguments.
        site: name of the diffusion site.
        observed: name of the site that is simulated.
        prior: the distribution at the diffusion site.
    """

    model: Callable
    site: str
    observed: str
    prior: Prior

    @classmethod
    def of(cls, model: Callable) -> Simulator:
        """Reads a model.

        Raises:
            InputError: a model that fails, or that has not exactly one diffusion site and one site
                to simulate.
        """
        try:
            trace = trace_model(model, (), {})
        except TypeError as error:
            raise InputError(
                f"the model must be callable without arguments, like `def model(y=None)`: {error}"
            ) from error
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise InputError(
                f"the model fails when it is called without arguments ({first_line(error)}); run it"
                " under numpyro.handlers.seed to see where"
            ) from error
        found = {n: s for n, s in trace.items() if s["type"] == "sample"}
        diffusion = [n for n, s in found.items() if sites.is_diffusion(s["fn"])]
        others = [n for n, s in found.items() if n not in diffusion and not sites.is_factor(s)]
        if len(diffusion) != 1 or len(others) != 1:
            raise InputError(
                f"the model has diffusion sites {diffusion} and other sites {others}; the training"
                " needs one of each, the other being simulated"
            )
        prior = sites.unwrap(found[diffusion[0]]["fn"])
        return cls(model, diffusion[0], others[0], prior)

    def __call__(
        self, key: PRNGKeyArray, x: Float[Array, "*event"]
    ) -> Float[Array, "*observation"]:
        """One observation of one event."""
        given = handlers.substitute(self.model, {self.site: x})
        trace = handlers.trace(handlers.seed(given, key)).get_trace()
        return jnp.asarray(trace[self.observed]["value"], jnp.result_type(float))

    def images(self, data: str | Path, config: TrainConfig) -> np.ndarray:
        """uint8 images of some data, of the prior's shape.

        Raises:
            InputError: data that cannot be used.
        """
        images, shape = load_images(data), self.prior.event_shape
        if images.shape[1:] != shape:
            raise InputError(
                f"{data}: images of shape {images.shape[1:]}, but site '{self.site}' has {shape};"
                " resize them, or take the prior of such images"
            )
        check_count(data, len(images), config.batch_size)
        return images

    def draws(self, config: TrainConfig) -> np.ndarray:
        """Float draws of the prior, for where there are no images."""
        keys = jax.random.split(own_stream(config, 1), _POOL // 64)
        draw = jax.jit(_draw)
        return np.concatenate([np.asarray(draw(self.prior, key)) for key in keys])

    def some_observations(self, events: np.ndarray, config: TrainConfig) -> np.ndarray:
        """Observations of at most 256 events, to see their shape and scale.

        Raises:
            InputError: they are all the same, or not finite.
        """
        some = np.random.default_rng(1).permutation(len(events))[:256]
        keys = jax.random.split(own_stream(config, 0), len(some))
        simulate = jax.jit(jax.vmap(self))
        y = np.asarray(simulate(keys, jnp.asarray(clean_events(events[some]))))
        if not np.all(np.isfinite(y)):
            raise InputError(
                f"site '{self.observed}' draws values that are not finite; look at what the model"
                " computes from draws of its prior"
            )
        if np.all(y == y[:1]):
            raise InputError(
                f"site '{self.observed}' is the same for every event; the network learns from"
                " observations that differ"
            )
        return y


class Pairs(NamedTuple):
    """What networks learn from that see observations: events, each paired with draws of y.

    Attributes:
        simulator: makes an observation of an event.
        events: all of them, held-out ones included, as `clean_events` takes them.
        used: which of them are learned from.
        held_out: which are not.
    """

    simulator: Simulator
    events: np.ndarray
    used: np.ndarray
    held_out: np.ndarray

    @classmethod
    def of(cls, simulator: Simulator, events: np.ndarray, config: TrainConfig) -> Pairs:
        """Holds some of the events out."""
        return cls(simulator, events, *split(len(events), config.batch_size))

    def batch(self, step: int, config: TrainConfig) -> Float[Array, " b *event"]:
        """The events of a step."""
        chosen = batch_indices(step, config.batch_size, len(self.used), config.seed)
        return jnp.asarray(clean_events(self.events[self.used[chosen]]))

    def unseen(self) -> Float[Array, " n *event"]:
        """At most 256 events that are not learned from."""
        return jnp.asarray(clean_events(self.events[self.held_out[:256]]))


def own_stream(config: TrainConfig, number: int) -> PRNGKeyArray:
    """A key that the loop does not use: it folds the step's number into the seed's."""
    return jax.random.fold_in(jax.random.key(config.seed), 2**31 + number)


def _draw(prior: Prior, key: PRNGKeyArray) -> Array:
    """64 draws, exact ones where the prior has them at once."""
    shape = (64,)
    return prior.sample(key, shape) if prior.has_exact_reverse else flow.sample(prior, key, shape)


def load_model(spec: str) -> Callable:
    """The function that ``FILE:FUNCTION`` names.

    Raises:
        InputError: no such file or function.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not (file and name):
        raise InputError(f"--model {spec}: give a Python file and a function, FILE:FUNCTION")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"--model {spec}: {path}: {what}; give a Python file, FILE:FUNCTION")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"--model {spec}: {path} is no Python file; give FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(
            f"--model {spec}: {path} fails when it is imported ({first_line(error)}); run it with"
            " python to see where"
        ) from error
    if not callable(getattr(module, name, None)):
        raise InputError(f"--model {spec}: {path} has no function '{name}'")
    return getattr(module, name)
