"""Diffusion sites whose prior depends on another one's value: which is sampled after which.

A cascade is such a model: ``low ~ base``, ``high ~ upsampler.given(low)``, ``y ~ p(y given high)``.
The sites whose priors depend on none come first, together; then one after the other those that
depend on what is there by then. Each stage is a `Problem` of its own, given the values of the
sites before it (`Held`), and with a guess of those after it (`guess`): what their priors make of
pure noise, E[x_0], given the sites before.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from smcdiff.base.module import Module, static
from smcdiff.errors import InputError
from smcdiff.priors import Prior
from smcdiff.problem import _sites as sites
from smcdiff.problem._dependence import depends_on_first
from smcdiff.problem._layout import Layout, Place
from smcdiff.problem._sites import Site


class Held(Module):
    """Values of the sites of earlier stages, flat.

    Attributes:
        values: of all of them, one after the other.
        layout: where each lies.
    """

    values: Float[Array, " p"]
    layout: Layout = static()

    @property
    def by_site(self) -> dict[str, Array]:
        """The value of each site."""
        return self.layout.split(self.values)


def in_order(diffusion: dict[str, Site], trace: Callable[[dict], dict[str, Site]]) -> list[list]:
    """The names of the sites of each stage.

    Args:
        diffusion: the diffusion sites of a run of the model.
        trace: the sites of a run of the model, given values of diffusion sites.

    Raises:
        InputError: a site in a plate whose prior depends on another one.
    """
    names, values = list(diffusion), {n: jnp.asarray(s["value"]) for n, s in diffusion.items()}

    def leaves(value: Array, name: str, of: str) -> list[Array]:
        prior = sites.unwrap(trace({**values, name: value})[of]["fn"])
        return [leaf for leaf in jax.tree.leaves(prior) if isinstance(leaf, jax.Array)]

    def depends(of: str, name: str) -> bool:
        return depends_on_first(lambda value: leaves(value, name, of), values[name])

    later = [
        name for index, name in enumerate(names)
        if any(depends(name, other) for other in names[:index])
    ]  # fmt: skip
    for name in later:
        if values[name].shape != sites.unwrap(diffusion[name]["fn"]).event_shape:
            raise InputError(
                f"site '{name}': its diffusion prior depends on another site, and it has a plate or"
                " a batch shape, which is not supported; write its events as sites of their own"
            )
    return [[name for name in names if name not in later], *([name] for name in later)]


def laid_out(names: list[str], found: dict[str, Site]) -> Layout:
    """The places of some sites, one after the other."""
    places, start = [], 0
    for name in names:
        shape = jnp.shape(found[name]["value"])
        places.append((name, Place(shape, start)))
        start += math.prod(shape)
    return Layout(tuple(places), True)


def prior_given(own: Prior, site: Site) -> Prior:
    """The prior of a later stage, given what a run of the model has held.

    Args:
        own: the prior at some other values: what does not depend on them is taken from it, so that
            a network's weights stay arguments of a compiled program, and its schedule stays that of
            the grid.
        site: of that run.
    """
    leaves, structure = jax.tree.flatten(sites.unwrap(site["fn"]))
    others, own_structure = jax.tree.flatten(own)
    if structure != own_structure:
        raise InputError(
            f"site '{site['name']}': its diffusion prior has another structure at other values of"
            " the sites that it depends on; let them change its arrays only"
        )
    is_traced = any(isinstance(leaf, Tracer) for leaf in leaves)
    pairs = zip(leaves, others, strict=True)
    made = structure.unflatten([b if is_traced and not isinstance(a, Tracer) else a
                                for a, b in pairs])  # fmt: skip
    made.schedule = own.schedule
    return made


def scale_of(prior: Prior) -> Float[Array, ""]:
    """Standard deviation of x_0 about what the prior makes of noise, averaged over the entries."""
    return jnp.sqrt(prior.average_spread(prior.schedule.noisiest))
