"""Which captions are trained on, which are held out, and which hold what training never shows.

1. *Unseen combinations*: two of the 18 pairs of colour and shape occur in no caption of training
   (`UNSEEN_KINDS`, 536 captions), though their colours and their shapes do; two more kinds occur
   there, but never in one number (`UNSEEN_COUNTS`, 2 captions).
2. *Held out*: of all others those whose SHA-256 hash falls into the first 15 %. Their words and
   kinds are trained on, in other captions.
3. *Training*: the rest.

A caption stays where it is for ever: the hash is of its text, and no list is kept.
"""

from __future__ import annotations

import enum
import functools
import hashlib

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from smcdiff.errors import InputError
from smcdiff.shapes.grammar import Caption, Colour, Group, Shape, every_caption, parse

UNSEEN_KINDS = ((Colour.CYAN, Shape.CIRCLE), (Colour.YELLOW, Shape.TRIANGLE))
"""Colours and shapes that no caption of training brings together."""
UNSEEN_COUNTS = (
    Group(3, Colour.RED, Shape.SQUARE),
    Group(4, Colour.GREEN, Shape.CIRCLE),
)
"""Groups that no caption of training has; their kinds occur in other numbers."""
HELD_OUT_SHARE = 0.15


class Split(enum.Enum):
    """A part of the captions; see the module."""

    TRAIN = "train"
    HELD_OUT = "held-out"
    UNSEEN_COMBINATION = "unseen-combination"


def split(caption: str | Caption) -> Split:
    """The part that a caption belongs to, for ever and on every machine.

    Args:
        caption: of the grammar.

    Raises:
        InputError: a caption outside the grammar.
    """
    caption = parse(caption)
    for group in caption.groups:
        if group.kind in UNSEEN_KINDS or group in UNSEEN_COUNTS:
            return Split.UNSEEN_COMBINATION
    digest = hashlib.sha256(str(caption).encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return Split.HELD_OUT if share < HELD_OUT_SHARE else Split.TRAIN


@functools.cache
def captions(part: Split | None = None) -> tuple[str, ...]:
    """All captions of the grammar, or of one part of them; those of one group come first.

    Args:
        part: None for all, 2,520.
    """
    return tuple(str(c) for c in every_caption() if part is None or split(c) is part)


@functools.cache
def _by_groups(part: Split | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The captions of one group, and those of two."""
    number = sum(len(parse(caption).groups) == 1 for caption in captions(part))
    return captions(part)[:number], captions(part)[number:]


def random_captions(
    key: PRNGKeyArray, number: int, part: Split | None = Split.TRAIN
) -> tuple[str, ...]:
    """Random captions, with replacement: with probability 1/2 each has one group, else two.

    Within one and within two groups all captions of the part are as likely. (Of all captions only
    3 % have one group, so that counts to 4 would hardly be learned from captions drawn alike.)

    Args:
        key: random key.
        number: how many.
        part: of which part; None for all captions.

    Raises:
        InputError: a negative number.
    """
    if number < 0:
        raise InputError(f"shapes.random_captions: number is {number}; it must be 0 or more")
    forms, places = np.asarray(jax.random.uniform(key, (2, number), np.float32), np.float64)
    choices = [_by_groups(part)[int(form < 0.5)] for form in forms]
    return tuple(
        choice[int(place * len(choice))] for choice, place in zip(choices, places, strict=True)
    )
