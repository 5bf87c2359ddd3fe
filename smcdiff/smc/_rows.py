"""The rows of particles that resampling moves, from device to device.

Ancestors are in order, so that the rows which device j needs of device i are a contiguous range of
i's survivors; each of them is sent once to a device, however many copies it has there. All devices
know all ancestors, thus all ranges, and need not ask each other.

Most rows stay, and those that leave go to a neighbour: resampling shifts the slots of exchangeable
particles by about sqrt(N). So rows travel in rounds, each of which sends up to `capacity` rows from
every device to the one that is k places on, for one k, by ``ppermute``. There are as many rounds as
the longest range of each distance wants, none for a distance over which nothing travels: one or two
each for the two neighbours in most steps. (``all_to_all`` would pad the ranges of all pairs to the
longest one, twenty times what has to travel on 8 devices; ``ragged_all_to_all`` needs no padding,
but XLA has it for some backends only, jax 0.10.) A device holds a few times its own rows at once,
whatever the weights are.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from smcdiff.smc._chains import Chains
from smcdiff.smc.devices import CHAINS, PARTICLES, num_devices


def capacity(num_particles: int, num_devices: int) -> int:
    """Rows that a device sends in a round; see the module."""
    return min(math.isqrt(num_particles) // 2 + 1, num_particles // num_devices)


def move_rows(
    mesh: Mesh | None, chains: Chains, particles: PyTree, ancestors: Int[Array, "*c n"]
) -> PyTree:
    """The particles of resampling, for all chains; inside `smcdiff.smc.devices.spread`.

    Args:
        mesh: of the filter.
        chains: of this device.
        particles: leaves of shape (C, N / P, ...), the part of this device on P of them.
        ancestors: which of the N particles each slot gets, in order.

    Returns:
        The part of this device of the particles at ``ancestors``.
    """
    parts = num_devices(mesh, PARTICLES)
    if parts == 1:
        return chains.over(_take)(particles, ancestors)
    size = capacity(ancestors.shape[-1], parts)
    route = chains.over(partial(_route, parts))(ancestors)
    longest = jnp.max(route.longest.reshape(-1, parts - 1), axis=0)
    rounds = -(-longest // size)
    if num_devices(mesh, CHAINS) > 1:  # whoever shares a program takes part in its collectives
        rounds = jax.lax.pmax(rounds, CHAINS)
    ends = jnp.cumsum(rounds)

    def exchange(carry):
        index, store = carry
        distance = jnp.searchsorted(ends, index, side="right")
        done = (index - ends[distance] + rounds[distance]) * size
        parcels = chains.over(lambda route, x: _parcel(route, x, distance, done, size))
        arrived = _send(parts, distance, parcels(route, particles))
        deliver = chains.over(lambda route, s, p: _deliver(route, s, p, distance, done, size))
        return index + 1, deliver(route, store, arrived)

    store = chains.over(lambda route, x: _take(x, route.kept))(route, particles)
    _, store = jax.lax.while_loop(lambda carry: carry[0] < ends[-1], exchange, (0, store))
    return chains.over(lambda route, x: _take(x, route.slots))(route, store)


class _Route(NamedTuple):
    """Which rows a device sends and receives, n = N / P rows on each of P devices, in one chain.

    A device stores each row that it needs once, in order; from there its slots take copies. By
    distance: k - 1 is for the rows that travel k devices on, in a circle.

    Attributes:
        kept: (n,) rows of its own by their place in the store; anything in the places of others.
        slots: (n,) place in the store of each slot's row.
        survivors: (N,) own rows by their number among all rows that all devices need.
        sent: (P - 1,) the number of the first row sent over each distance.
        places: (P - 1, 2) place in the store of the first row received over each distance, and the
            place after the last.
        longest: (P - 1,) the most rows that any device sends over each distance.
    """

    kept: Int[Array, " rows"]
    slots: Int[Array, " rows"]
    survivors: Int[Array, " n"]
    sent: Int[Array, " distances"]
    places: Int[Array, "distances 2"]
    longest: Int[Array, " distances"]


def _route(parts: int, ancestors: Int[Array, " n"]) -> _Route:
    """The route of one chain's rows, from ancestors in order."""
    n, me = ancestors.shape[0], jax.lax.axis_index(PARTICLES)
    rows = n // parts
    slot = jnp.arange(n, dtype=jnp.int32)
    is_new = (slot % rows == 0) | (ancestors != jnp.roll(ancestors, 1))
    before = jnp.cumulative_sum(is_new, dtype=jnp.int32, include_initial=True)
    target = jnp.where(is_new, before[:-1], n)
    needed = jnp.zeros(n, jnp.int32).at[target].set(ancestors, mode="drop")
    # Of slots: where the rows of each device begin, cut to the slots of each device.
    owners = jnp.searchsorted(ancestors, rows * jnp.arange(parts + 1, dtype=jnp.int32))
    first = rows * jnp.arange(parts, dtype=jnp.int32)[None, :]
    starts = before[jnp.clip(owners[:-1, None], first, first + rows)]  # (from, to)
    ends = before[jnp.clip(owners[1:, None], first, first + rows)]
    here = before[me * rows]
    kept = jax.lax.dynamic_slice_in_dim(needed, here, rows) - me * rows
    distance = jnp.arange(1, parts)
    source = (me - distance) % parts
    device = jnp.arange(parts)[:, None]
    return _Route(
        kept=jnp.clip(kept, 0, rows - 1),
        slots=jax.lax.dynamic_slice_in_dim(before, me * rows + 1, rows) - 1 - here,
        survivors=jnp.clip(needed - me * rows, 0, rows - 1),
        sent=starts[me, (me + distance) % parts],
        places=jnp.stack([starts[source, me], ends[source, me]], axis=1) - here,
        longest=jnp.max((ends - starts)[device, (device + distance[None, :]) % parts], axis=0),
    )


def _parcel(
    route: _Route, particles: PyTree, distance: Int[Array, ""], done: Int[Array, ""], size: int
) -> PyTree:
    """The next ``size`` rows for the device at a distance, after the first ``done``."""
    number = route.sent[distance] + done + jnp.arange(size, dtype=jnp.int32)
    return _take(particles, route.survivors[jnp.minimum(number, route.survivors.shape[0] - 1)])


def _send(parts: int, distance: Int[Array, ""], parcels: PyTree) -> PyTree:
    """Parcels of all devices, each sent on over the same distance."""

    def over(k: int, parcels: PyTree) -> PyTree:
        pairs = [(i, (i + k) % parts) for i in range(parts)]
        return jax.tree.map(lambda a: jax.lax.ppermute(a, PARTICLES, pairs), parcels)

    return jax.lax.switch(distance, [partial(over, k) for k in range(1, parts)], parcels)


def _deliver(
    route: _Route,
    store: PyTree,
    parcel: PyTree,
    distance: Int[Array, ""],
    done: Int[Array, ""],
    size: int,
) -> PyTree:
    """The store with a parcel that came over a distance; what is no row of the range is dropped."""
    place = route.places[distance, 0] + done + jnp.arange(size, dtype=jnp.int32)
    place = jnp.where(place < route.places[distance, 1], place, route.kept.shape[0])
    return jax.tree.map(lambda a, new: a.at[place].set(new, mode="drop"), store, parcel)


def _take(tree: PyTree, rows: Int[Array, " rows"]) -> PyTree:
    return jax.tree.map(lambda a: a[rows], tree)
