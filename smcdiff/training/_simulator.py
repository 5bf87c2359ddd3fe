"""What an amortised network learns from: observations that a NumPyro model draws."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro import handlers

from smcdiff.errors import InputError, first_line
from smcdiff.priors import Prior
from smcdiff.problem import _sites as sites
from smcdiff.problem._tracing import trace as trace_model


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
            InputError: no diffusion site on images, or not exactly one site to simulate.
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
                f"the model has diffusion sites {diffusion} and other sites {others}; amortisation"
                " needs one of each, the other being simulated"
            )
        prior = sites.unwrap(found[diffusion[0]]["fn"])
        if len(prior.event_shape) != 3:
            raise InputError(
                f"site '{diffusion[0]}' has events of shape {prior.event_shape}; the conditional"
                " network takes images (h, w, c)"
            )
        return cls(model, diffusion[0], others[0], prior)

    def __call__(self, key: Array, x: Float[Array, "h w c"]) -> Array:
        """One observation of one event."""
        given = handlers.substitute(self.model, {self.site: x})
        trace = handlers.trace(handlers.seed(given, key)).get_trace()
        return jnp.asarray(trace[self.observed]["value"], jnp.result_type(float))


def load_model(spec: str) -> Callable:
    """The function that ``FILE:FUNCTION`` names.

    Raises:
        InputError: no such file or function.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not name or not path.is_file():
        raise InputError(f"--model {spec}: give a Python file and a function, FILE:FUNCTION")
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
