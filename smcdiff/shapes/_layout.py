"""Where the objects of a caption lie: sizes at random, then places by rejection in one array.

Of a fixed number of candidate scenes the first with room for all objects is taken, so that places
are uniform among those that have it, and no loop can go on for ever. Where none has room, the
objects shrink until they fit into the one with most of it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from smcdiff.shapes._figures import REACH, SHAPES
from smcdiff.shapes.grammar import MAX_COUNT, Caption, Colour, Relation

COLOURS = tuple(Colour)
"""The order in which the colours are numbered."""
GAP = 1.3
"""Centres are at least this times the sum of the radii apart: 2.6 radii of equal objects."""
MARGIN = 0.03
"""What is left free along the border, in sides of the picture."""
SMALLEST = 0.12
LARGEST = (0.22, 0.18, 0.16, 0.145)
"""The radius of a scene's largest object is uniform between these, by the number of objects."""
UNEQUAL = 0.12
"""Each object is smaller than that by a random share of up to this."""
ASIDE = 0.75
"""Groups in a relation are shifted sideways by at most this times their distance along it."""
CANDIDATES = 384


class Codes(NamedTuple):
    """What captions say, as arrays with one entry per object; empty places are at the end.

    Attributes:
        present: which of the four places hold an object.
        is_first: which belong to the first group.
        shapes: numbers of `SHAPES`.
        colours: numbers of `COLOURS`.
        across: whether the second group stands right of the first, not below.
        related: whether there are two groups.
    """

    present: Bool[np.ndarray, "n 4"]
    is_first: Bool[np.ndarray, "n 4"]
    shapes: Int[np.ndarray, "n 4"]
    colours: Int[np.ndarray, "n 4"]
    across: Bool[np.ndarray, " n"]
    related: Bool[np.ndarray, " n"]


class Places(NamedTuple):
    """Where objects lie, in sides of the picture, from its upper left corner.

    Attributes:
        right: of the centres.
        down: of the centres.
        radii: of the objects.
    """

    right: Float[Array, "4"]
    down: Float[Array, "4"]
    radii: Float[Array, "4"]


def encode(captions: tuple[Caption, ...]) -> Codes:
    """Captions as arrays."""
    number = len(captions)
    present, is_first = np.zeros((2, number, MAX_COUNT), bool)
    shapes, colours = np.zeros((2, number, MAX_COUNT), np.int32)
    for row, caption in enumerate(captions):
        start = 0
        for place, group in enumerate(caption.groups):
            objects = slice(start, start + group.count)
            present[row, objects] = True
            is_first[row, objects] = place == 0
            shapes[row, objects] = SHAPES.index(group.shape)
            colours[row, objects] = COLOURS.index(group.colour)
            start += group.count
    relations = [caption.relation for caption in captions]
    across = np.array([relation is Relation.LEFT_OF for relation in relations], bool)
    related = np.array([relation is not None for relation in relations], bool)
    return Codes(present, is_first, shapes, colours, across, related)


def place(key: PRNGKeyArray, codes: Codes) -> Places:
    """Places of one caption's objects; ``codes`` is one row."""
    size_key, cut_key, place_key = jax.random.split(key, 3)
    radii = _radii(size_key, codes)
    lowest = REACH * radii + MARGIN
    along, aside = jax.random.uniform(place_key, (2, CANDIDATES, MAX_COUNT), jnp.float32)
    cut = jax.random.uniform(cut_key, (CANDIDATES, 1), jnp.float32, minval=0.35, maxval=0.65)
    halves = jnp.where(codes.is_first[None], cut * along, cut + (1.0 - cut) * along)
    along = jnp.where(codes.related, halves, along)
    span = (1.0 - 2.0 * lowest)[None]
    along, aside = lowest[None] + along * span, lowest[None] + aside * span
    room = jnp.minimum(_room(codes, radii, along, aside), 1.0)
    chosen = jnp.argmax(room)  # the first, of several with room enough
    along, aside = along[chosen], aside[chosen]
    right, down = jnp.where(codes.across, along, aside), jnp.where(codes.across, aside, along)
    return Places(right, down, radii * room[chosen])


def _radii(key: PRNGKeyArray, codes: Codes) -> Float[Array, "4"]:
    scene_key, object_key = jax.random.split(key)
    largest = jnp.asarray(LARGEST, jnp.float32)[jnp.sum(codes.present) - 1]
    scene = jax.random.uniform(scene_key, (), jnp.float32, minval=SMALLEST, maxval=largest)
    return scene * jax.random.uniform(object_key, (MAX_COUNT,), jnp.float32, minval=1.0 - UNEQUAL)


def _room(
    codes: Codes, radii: Float[Array, "4"], along: Float[Array, "k 4"], aside: Float[Array, "k 4"]
) -> Float[Array, " k"]:
    """By what the radii may be multiplied in each scene; 0 where a relation would be in doubt."""
    first, later = codes.is_first, codes.present & ~codes.is_first
    both = codes.present[:, None] & codes.present[None] & ~jnp.eye(MAX_COUNT, dtype=bool)
    across = first[:, None] & later[None]
    apart = GAP * (radii[:, None] + radii[None])
    steps = along[:, None, :] - along[:, :, None]  # from object i to object j
    distances = jnp.hypot(steps, aside[:, None, :] - aside[:, :, None])
    distances = jnp.where(across[None], steps, distances)  # a whole group before the other
    room = jnp.where(both[None], distances / apart[None], jnp.inf)
    shares = [group / jnp.maximum(jnp.sum(group), 1) for group in (first, later)]
    forward, sideways = (jnp.abs(x @ shares[1] - x @ shares[0]) for x in (along, aside))
    is_straight = ~codes.related | (sideways <= ASIDE * forward)
    return jnp.where(is_straight, jnp.min(room, axis=(1, 2)), 0.0)
