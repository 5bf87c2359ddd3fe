"""The diffusion sites of a model as one: samplers see one prior on one event.

A site by itself keeps its prior and its shape. Several sites, or one in a plate, are a product of
independent priors on one flat event (`smcdiff.priors.product`), in which each site has its place.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from smcdiff.base._trees import are_equal
from smcdiff.priors import Prior
from smcdiff.priors.product import product
from smcdiff.problem import _sites as sites
from smcdiff.problem._sites import Site


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a site's value lies in a flat event.

    Attributes:
        shape: of the value, plates included.
        start: of its entries, row by row.
    """

    shape: tuple[int, ...]
    start: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """The diffusion sites of a model.

    Attributes:
        places: name and place of each, in the order of the model.
        joins_sites: whether the prior is a product, of several sites or of a plate.
    """

    places: tuple[tuple[str, Place], ...]
    joins_sites: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sites."""
        return tuple(name for name, _ in self.places)

    @property
    def title(self) -> str:
        """The sites, for messages."""
        return "', '".join(self.names)

    def split(self, x: Shaped[Array | np.ndarray, "*batch_event"], num_axes: int = 0) -> dict:
        """The value of each site.

        Args:
            x: an event.
            num_axes: leading axes that are none of the event's.
        """
        batch = x.shape[:num_axes]
        flat = x.reshape(*batch, -1)
        return {
            name: flat[..., place.start : place.start + math.prod(place.shape)].reshape(
                *batch, *place.shape
            )
            for name, place in self.places
        }

    def values_at(self, x: Shaped[Array, "*event"] | None) -> dict[str, Array]:
        """The value of each site at an event; None is zeros."""
        if x is None:
            return {name: jnp.zeros(place.shape) for name, place in self.places}
        if self.joins_sites:
            return self.split(x)
        return {self.names[0]: x}  # as it is: what the model does to it is recorded


def lay_out(found: dict[str, Site]) -> tuple[Prior, Layout]:
    """The prior of all diffusion sites together, and where each of them lies.

    Args:
        found: the diffusion sites of a run of the model, whose priors are independent.
    """
    shapes = {name: jnp.shape(site["value"]) for name, site in found.items()}
    priors = {name: sites.unwrap(site["fn"]) for name, site in found.items()}
    name, prior = next(iter(priors.items()))
    if len(found) == 1 and shapes[name] == prior.event_shape:
        return prior, Layout(((name, Place(shapes[name], 0)),), False)
    groups: list[list[str]] = []
    for name, prior in priors.items():  # sites of one prior side by side: one network call
        own = [group for group in groups if are_equal(priors[group[0]], prior)]
        own[0].append(name) if own else groups.append([name])
    starts, start = {}, 0
    for name in (name for group in groups for name in group):
        starts[name] = start
        start += math.prod(shapes[name])
    parts = [priors[group[0]] for group in groups]
    copies = [
        sum(math.prod(shapes[name]) for name in group) // part.size
        for group, part in zip(groups, parts, strict=True)
    ]
    places = tuple((name, Place(shapes[name], starts[name])) for name in found)
    return product(parts, copies), Layout(places, True)
