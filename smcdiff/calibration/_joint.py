"""The joint law that a NumPyro model declares: its unknowns with data, and its log likelihood.

Run without its data, a model draws them: its data arguments are None, and the observed sites are
sampled, as `numpyro.infer.Predictive` does for the prior predictive.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.core import Tracer
from jaxtyping import Array, Float, Key, PRNGKeyArray, Shaped
from numpyro import handlers

from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.errors import InputError, did_you_mean, first_line
from smcdiff.priors import Prior
from smcdiff.priors.product import Product
from smcdiff.problem import _arguments as arguments
from smcdiff.problem import _lock as lock
from smcdiff.problem import _sites as sites
from smcdiff.problem._sites import Site

DrawPrior = Callable[[PRNGKeyArray, Prior], Float[Array, "*event"]]


class Simulation(NamedTuple):
    """Draws of the joint law; arrays may have a leading axis of simulations.

    Attributes:
        unknowns: latent site -> value.
        data: observed site -> value.
    """

    unknowns: dict[str, Shaped[Array, "..."]]
    data: dict[str, Shaped[Array, "..."]]


def from_prior(key: PRNGKeyArray, prior: Prior) -> Float[Array, "*event"]:
    """A draw of the prior's own."""
    return prior.sample(key)


def from_chain(
    kernel: Kernel, levels: Level, key: PRNGKeyArray, prior: Prior
) -> Float[Array, "*event"]:
    """The end of a path of the reverse chain of this kernel and grid."""
    return prior.reverse_path(key, kernel, levels)[-1].reshape(prior.event_shape)


def from_chain_of_product(
    kernel: Kernel, levels: Level, schedule: Schedule, key: PRNGKeyArray, prior: Prior
) -> Float[Array, "*event"]:
    """The same of a part of a product with this schedule, whose parts move independently."""
    part = Product([prior], schedule=schedule)
    return part.reverse_path(key, kernel, levels)[-1].reshape(prior.event_shape)


def _typical(key: PRNGKeyArray, prior: Prior) -> Float[Array, "*event"]:
    """A point of the prior's scale, which costs no network evaluation."""
    return prior.typical_points(1)[0]


@dataclasses.dataclass(frozen=True)
class Joint:
    """A model without its data.

    Attributes:
        model: the NumPyro model.
        arrays: its array arguments.
        fixed: its other arguments.
        data: observed site -> the argument that takes its value.
        unknowns: names of the latent sites.
        priors: diffusion site -> its prior.
        example: a draw of which the diffusion sites are no draws of the prior; nothing but shapes
            and checks may rest on it.
        has_density: whether an observed site has noise.
    """

    model: Callable
    arrays: tuple[Array, ...]
    fixed: arguments.StaticArguments
    data: dict[str, str]
    unknowns: tuple[str, ...] = ()
    priors: dict[str, Prior] = dataclasses.field(default_factory=dict)
    example: Simulation = Simulation({}, {})
    has_density: bool = True

    def run(
        self,
        key: PRNGKeyArray,
        draw_prior: DrawPrior,
        arrays: tuple[Array, ...],
        values: Mapping[str, Array],
        data: Mapping[str, Array],
        priors: Mapping[str, Prior],
    ) -> dict[str, Site]:
        """The sites of a run of the model.

        Args:
            key: random key.
            draw_prior: how diffusion sites are drawn.
            arrays: array arguments of the model.
            values: of latent sites, which are then not drawn.
            data: of observed sites; without them they are drawn.
            priors: arguments of a compiled program that stand for what the priors read, so that a
                network's weights are no constants of it. What a prior has from another latent site
                is its own.
        """

        def value(site: Site) -> Array | None:
            if site["type"] != "sample" or site["is_observed"]:
                return None
            name, fn = site["name"], site["fn"]
            if name in values:
                return values[name]
            if not sites.is_diffusion(fn):
                return None
            prior = _with_leaves(sites.unwrap(fn), priors.get(name))
            keys = jax.random.split(site["kwargs"]["rng_key"], math.prod(fn.batch_shape))
            draws = jax.vmap(lambda key: draw_prior(key, prior))(keys)
            return draws.reshape(fn.batch_shape + fn.event_shape)

        args, kwargs = self.fixed.rebuild(arrays)
        given = {self.data[name]: value for name, value in data.items()}
        with lock.NUMPYRO, numpyro.validation_enabled(False):
            seeded = handlers.substitute(handlers.seed(self.model, key), substitute_fn=value)
            found = handlers.trace(seeded).get_trace(*args, **{**kwargs, **given})
        return {name: site for name, site in found.items() if site["type"] == "sample"}

    def simulator(self, draw_prior: DrawPrior) -> Callable[[Key[Array, " n"]], Simulation]:
        """One compiled program that draws as many simulations as it gets keys.

        Args:
            draw_prior: how diffusion sites are drawn; a pytree, or a plain function.
        """

        @jax.jit
        def draw(keys, draw_prior, arrays, priors):
            def one(key):
                found = self.run(key, draw_prior, arrays, {}, {}, priors)
                return self._split(found)

            return jax.vmap(one)(keys)

        draw_prior = jax.tree_util.Partial(draw_prior)
        return lambda keys: draw(keys, draw_prior, self.arrays, self.priors)

    def log_likelihood(
        self, unknowns: Mapping[str, Array], data: Mapping[str, Array], arrays: tuple[Array, ...]
    ) -> Float[Array, ""]:
        """Log p(data given unknowns), of all observed sites."""
        found = self.run(jax.random.key(0), from_prior, arrays, unknowns, data, {})
        return jnp.asarray(sum(jnp.sum(sites.log_prob(found[name])) for name in self.data))

    def as_arguments(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Data by the names of the model's arguments."""
        return {self.data[name]: value for name, value in data.items()}

    def _split(self, found: dict[str, Site]) -> Simulation:
        values = {name: jnp.asarray(site["value"]) for name, site in found.items()}
        latent = {name: value for name, value in values.items() if name not in self.data}
        return Simulation(latent, {name: values[name] for name in self.data})


def _with_leaves(prior: Prior, given: Prior | None) -> Prior:
    """The prior, with the leaves of another in place of those that are constants."""
    if given is None:
        return prior
    leaves, structure = jax.tree.flatten(prior)
    pairs = zip(leaves, jax.tree.leaves(given), strict=True)
    return structure.unflatten([own if isinstance(own, Tracer) else other for own, other in pairs])


def read_joint(
    model: Callable, args: tuple, kwargs: dict[str, Any], data_arguments: Mapping[str, str] | None
) -> Joint:
    """Reads a model and its arguments, but the data. No prior is sampled.

    Args:
        model: a NumPyro model that draws its observed sites where it is given no data.
        args: its other arguments.
        kwargs: its other keyword arguments.
        data_arguments: observed site -> argument; None is every site that bears the name of an
            argument.

    Raises:
        InputError: a model whose joint law is not to be had; names the site and the remedy.
    """
    arguments.check_signature(model, args, kwargs)
    arrays, fixed = arguments.split(args, kwargs)
    joint = Joint(model, arrays, fixed, {})
    drawn = _traced(joint, {})
    _check_drawn(drawn)
    joint = dataclasses.replace(joint, data=_data_of(model, drawn, data_arguments))
    example = joint._split(drawn)
    arguments.check_signature(model, args, {**kwargs, **joint.as_arguments(example.data)})
    seen = _traced(joint, example.data)
    _check_seen(joint, example, seen)
    return dataclasses.replace(
        joint,
        unknowns=tuple(example.unknowns),
        priors={n: sites.unwrap(s["fn"]) for n, s in drawn.items() if sites.is_diffusion(s["fn"])},
        example=example,
        has_density=not all(sites.is_exact(seen[name]) for name in joint.data),
    )


def _traced(joint: Joint, data: Mapping[str, Array]) -> dict[str, Site]:
    """The sites of a run at typical points of the priors."""
    try:
        return joint.run(jax.random.key(0), _typical, joint.arrays, {}, data, {})
    except InputError:
        raise
    except Exception as error:  # a user's model may raise anything
        given = "simulated data" if data else "no data (its observed sites must then be drawn)"
        raise InputError(
            f"calibrate: the model fails with {given}: {first_line(error)}; run it under"
            " numpyro.handlers.seed to see where"
        ) from error


def _check_drawn(drawn: dict[str, Site]) -> None:
    """Raises ``InputError`` where what the model draws is not what its posterior is of."""
    for name, site in drawn.items():
        if sites.is_factor(site):
            raise InputError(
                f"calibrate: site '{name}' is a numpyro.factor, from which no data can be drawn;"
                " write it as an observed site"
            )
        if site["is_observed"]:
            raise InputError(
                f"calibrate: site '{name}' is observed although it was given no data; its values"
                f" must be drawn, so make them an argument of the model: {name}=None"
            )
        if site["scale"] is not None:
            raise InputError(
                f"calibrate: site '{name}' is scaled (handlers.scale, or a plate that subsamples),"
                " so that the posterior is not that of what the model draws; take it out"
            )


def _data_of(
    model: Callable, drawn: dict[str, Site], chosen: Mapping[str, str] | None
) -> dict[str, str]:
    """Observed site -> argument of the model."""
    free = [name for name, site in drawn.items() if not sites.is_diffusion(site["fn"])]
    if chosen is None:
        names = inspect.signature(model).parameters
        found = {name: name for name in free if name in names}
        if not found:
            raise InputError(
                f"calibrate: none of the sites {free} bears the name of an argument of the model"
                f" ({', '.join(names)}), so it is not known which are data; pass"
                ' data_arguments={"site": "argument"}'
            )
        return found
    for name in chosen:
        if name not in free:
            raise InputError(
                f"calibrate: data_arguments names the site '{name}', which the model does not draw;"
                f" {did_you_mean(name, free)}"
            )
    if not chosen:
        raise InputError(
            "calibrate: data_arguments is empty; name the observed sites, or pass None"
        )
    return dict(chosen)


def _check_seen(joint: Joint, example: Simulation, seen: dict[str, Site]) -> None:
    """Raises ``InputError`` unless the model observes what it is given, and nothing else."""
    for name, argument in joint.data.items():
        value = example.data[name]
        site = seen.get(name)
        if site is None or not site["is_observed"] or not _equal(site["value"], value):
            raise InputError(
                f"calibrate: site '{name}' does not observe the argument '{argument}' as it is;"
                f" write obs={argument} at that site, or name the right one in data_arguments"
            )
    latent = {name for name, site in seen.items() if not site["is_observed"]}
    if latent != set(example.unknowns):
        raise InputError(
            f"calibrate: with data the model has the latent sites {sorted(latent)}, and without"
            f" {sorted(example.unknowns)}; they must be the same"
        )
    if not latent:
        raise InputError("calibrate: the model has no latent site, so there is nothing to infer")


def _equal(value: Any, expected: Array) -> bool:
    return np.shape(value) == np.shape(expected) and bool(
        np.array_equal(np.asarray(value), np.asarray(expected))
    )
