"""What is ranked: functions of the unknowns and of the data, and distances from reference points.

Of a site of at most 16 entries every entry. Of a larger one the mean of its entries (a shift of
all), their standard deviation (noise that is left over, or detail that was smoothed away), and four
random projections of the standardised site (any other linear error, of which each sees a part).
Those are functions of the unknowns alone, and a sampler that ignores the data altogether has
uniform ranks of them; so the log likelihood is ranked, too (Modrák et al. 2023).

Distances are of the standardised sites: less the prior mean, over the prior standard deviation of
each entry, both of pilot simulations. A site counts by the mean over its entries, so that an image
does not hide a noise level. Reference points are pilot simulations, too.

References:
    M. Modrák, A. H. Moon, S. Kim, P. Bürkner, N. Huurre, K. Faltejsková, A. Gelman and A. Vehtari
    (2023), Simulation-based calibration checking for Bayesian computation: the choice of test
    quantities shapes sensitivity, Bayesian Analysis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from smcdiff.calibration._joint import Joint, Simulation
from smcdiff.errors import InputError, first_line

MOST_ENTRIES = 16
"""Sites with more entries are ranked by a few functionals."""
NUM_PILOTS = 128
"""Simulations that tell the scale of the unknowns, and serve as reference points."""
_PROJECTIONS = 4
_LEAST_WIDTH = 1e-2
"""Of the widest entry of a site: entries that hardly vary are not blown up to its width."""
LOG_LIKELIHOOD, TARP = "log likelihood", "TARP"
Quantity = Callable[[dict[str, Array], dict[str, Array]], Array]
Sites = dict[str, Shaped[Array, "..."]]
HostSites = dict[str, Shaped[np.ndarray, "..."]]


class _Scale(NamedTuple):
    """Location and scale of the sites under the prior.

    Attributes:
        mean: of each entry.
        width: standard deviation of each entry, at least `_LEAST_WIDTH` of the site's widest.
    """

    mean: Sites
    width: Sites

    def standardise(self, unknowns: Mapping[str, Array]) -> Sites:
        return {
            name: (value - self.mean[name]) / self.width[name] for name, value in unknowns.items()
        }


def check_quantities(joint: Joint, quantities: Mapping[str, Quantity]) -> None:
    """Raises ``InputError`` where a quantity fails, or bears the name of another.

    Args:
        joint: the model.
        quantities: the user's.
    """
    unknowns, data = joint.example
    for name, quantity in quantities.items():
        try:
            found = jax.eval_shape(quantity, dict(unknowns), dict(data))
        except Exception as error:  # a user's function may raise anything
            raise InputError(
                f"calibrate: quantities['{name}'] fails ({first_line(error)}); it is called as"
                " f(sites, data) with the arrays of one draw and of the data by site, and must be"
                " of jax.numpy"
            ) from error
        if not hasattr(found, "shape"):
            raise InputError(f"calibrate: quantities['{name}'] returns no array; return one")
    taken = {*unknowns, LOG_LIKELIHOOD, TARP} & quantities.keys()
    if taken:
        raise InputError(f"calibrate: quantities {sorted(taken)} are ranked already; rename them")


def values_of(
    joint: Joint,
    quantities: Mapping[str, Quantity],
    unknowns: Sites,
    data: Sites,
    arrays: tuple[Array, ...],
) -> Sites:
    """The quantities of one draw: those of the model, and the user's.

    Args:
        joint: the model.
        quantities: the user's.
        unknowns: latent site -> value.
        data: observed site -> value.
        arrays: array arguments of the model.
    """
    own = {n: unknowns[n] for n in joint.unknowns if unknowns[n].size <= MOST_ENTRIES}
    if joint.has_density:
        own[LOG_LIKELIHOOD] = joint.log_likelihood(unknowns, data, arrays)
    users = {name: f(dict(unknowns), dict(data)) for name, f in quantities.items()}
    return {**own, **users}


class Ranking:
    """Ranks the truth of a simulation among draws.

    Attributes:
        names: of the quantities.
        tarp_names: of TARP's distances.

    Args:
        joint: the model.
        quantities: the user's.
        pilot: simulations of which come the scale and the reference points.
    """

    def __init__(self, joint: Joint, quantities: Mapping[str, Quantity], pilot: Simulation):
        """See the class."""
        self._joint, self._quantities = joint, quantities
        self._pilot = jax.device_get(pilot.unknowns)
        self._scale = _Scale(
            {name: jnp.mean(values, axis=0) for name, values in pilot.unknowns.items()},
            {name: _width(values) for name, values in pilot.unknowns.items()},
        )
        self._many = jax.jit(jax.vmap(self._values, (0, None, None, None)))
        example = joint.example
        order: list[list[str]] = []  # JAX sorts the keys of what a function returns

        def traced(*given: Any) -> tuple[Sites, Sites]:
            parts = self._values(*given)
            order.extend(list(part) for part in parts)
            return parts

        parts = jax.eval_shape(traced, *example, example.unknowns, joint.arrays)
        shapes = [{n: part[n].shape for n in own} for part, own in zip(parts, order, strict=True)]
        self._places = [_places(part) for part in shapes]
        self.names, self.tarp_names = (list(places) for places in self._places)

    def rank(
        self, random: np.random.Generator, truth: HostSites, draws: HostSites, data: HostSites
    ) -> tuple[dict[str, int], dict[str, int]]:
        """The ranks of a truth among draws of its posterior, and TARP's.

        Args:
            random: of the reference point and of ties.
            truth: latent site -> (*event).
            draws: latent site -> (L, *event).
            data: observed site -> value.

        Raises:
            InputError: a quantity that is NaN.
        """
        place = random.integers(NUM_PILOTS)
        reference = {name: values[place] for name, values in self._pilot.items()}
        together = {
            name: np.concatenate([truth[name][None], draws[name].astype(truth[name].dtype)])
            for name in truth
        }
        found = jax.device_get(self._many(together, data, reference, self._joint.arrays))
        ranks, tarp_ranks = (
            {
                name: _rank(name, part[quantity][(slice(None), *place)], random)
                for name, (quantity, place) in places.items()
            }
            for part, places in zip(found, self._places, strict=True)
        )
        return ranks, tarp_ranks

    def _values(
        self, unknowns: Sites, data: Sites, reference: Sites, arrays: tuple[Array, ...]
    ) -> tuple[Sites, Sites]:
        """What is ranked of one draw, and its squared distances from the reference point."""
        standardised = self._scale.standardise(unknowns)
        large = {
            name: functional
            for site in self._joint.unknowns if unknowns[site].size > MOST_ENTRIES
            for name, functional in _functionals(site, unknowns[site], standardised[site]).items()
        }  # fmt: skip
        ranked = {**large, **values_of(self._joint, self._quantities, unknowns, data, arrays)}
        standard_reference = self._scale.standardise(reference)
        return ranked, _distances(self._joint.unknowns, standardised, standard_reference)


def _width(values: Shaped[Array, " n *event"]) -> Float[Array, "*event"]:
    width = jnp.std(values, axis=0)
    least = _LEAST_WIDTH * jnp.max(width, initial=0.0)
    return jnp.where(least > 0.0, jnp.maximum(width, least), 1.0)


def _functionals(site: str, value: Array, standardised: Array) -> Sites:
    """What is ranked of a site of many entries."""
    flat = jnp.ravel(standardised)
    directions = jax.random.normal(jax.random.key(0), (_PROJECTIONS, flat.size), flat.dtype)
    projections = directions @ flat
    return {
        f"{site} mean": jnp.mean(value),
        f"{site} sd": jnp.std(value),
        **{f"{site} projection {i}": projections[i] for i in range(_PROJECTIONS)},
    }


def _distances(sites: Sequence[str], points: Sites, reference: Sites) -> Sites:
    """Squared distances from the reference point: of all sites together, and of each by itself."""
    own = {name: jnp.mean((points[name] - reference[name]) ** 2) for name in sites}
    together = {TARP: jnp.asarray(sum(own.values()))}
    if len(own) == 1:
        return together
    return together | {f"{TARP} {name}": distance for name, distance in own.items()}


def _places(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The name of each entry of some arrays -> its array and its place there."""
    return {
        f"{name}[{', '.join(map(str, place))}]" if place else name: (name, place)
        for name, shape in shapes.items()
        for place in np.ndindex(shape)
    }


def _rank(name: str, values: Shaped[np.ndarray, " m"], random: np.random.Generator) -> int:
    """The rank of the first among the others; between equal ones at random."""
    truth, draws = values[0], values[1:]
    if np.any(np.isnan(values)):
        whose = "the truth" if np.isnan(truth) else "a draw of the sampler"
        raise InputError(
            f"calibrate: the quantity '{name}' is NaN at {whose}; a rank needs numbers that can be"
            " compared"
        )
    below, equal = int(np.sum(draws < truth)), int(np.sum(draws == truth))
    return below + int(random.integers(equal + 1))
