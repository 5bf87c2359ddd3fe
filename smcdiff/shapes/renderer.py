"""Pictures of captions: anti-aliased, without end, the same for the same key.

Every scene is drawn at 64 x 64; smaller pictures are its averages over blocks, so that pictures of
several sizes by one key show one scene, as a cascade needs.

The background is a grey within [-1, 1], and so are the colours (`PALETTE`): dynamic thresholding
divides by a quantile of the absolute values, and where most of a picture sits at the bound, as on
white, any overshoot greys the whole. ``background=WHITE`` shows this.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from smcdiff.errors import InputError
from smcdiff.shapes._figures import averaged, coverage, pixel_centres
from smcdiff.shapes._layout import COLOURS, Codes, encode, place
from smcdiff.shapes.grammar import Caption, Colour, parse

SIZES = (16, 32, 64)
"""Pixels a side that pictures may have."""
GREY, WHITE = 0.4, 1.0
"""Backgrounds; grey is the default."""
PALETTE = {
    Colour.RED: (0.8, -0.8, -0.8),
    Colour.GREEN: (-0.8, 0.8, -0.8),
    Colour.BLUE: (-0.8, -0.8, 0.8),
    Colour.YELLOW: (0.8, 0.8, -0.8),
    Colour.MAGENTA: (0.8, -0.8, 0.8),
    Colour.CYAN: (-0.8, 0.8, 0.8),
}
"""Red, green and blue of each colour, in [-1, 1]."""


def render(
    caption: str | Caption, key: PRNGKeyArray, size: int = 32, *, background: float = GREY
) -> Float[Array, "size size 3"]:
    """A picture that the caption describes, with random sizes and places.

    Objects are at least 2.6 radii apart, wholly inside the picture, and groups stand in their
    relation by a margin: the whole of one above (left of) the whole of the other, and the distance
    sideways at most 3/4 of that along.

    Args:
        caption: of the grammar, as "two red circles above a blue square".
        key: random key; one key gives one scene, at every size.
        size: pixels a side: 16, 32 or 64.
        background: grey level in [-1, 1], on all channels.

    Returns:
        (size, size, 3) float32 in [-1, 1].

    Raises:
        InputError: a caption outside the grammar, another size or background.
    """
    codes = _checked((caption,), size, background)
    return _draw(key[None], codes, jnp.float32(background), size)[0]


def render_batch(
    captions: Sequence[str | Caption],
    key: PRNGKeyArray,
    size: int = 32,
    *,
    background: float = GREY,
) -> Float[Array, "n size size 3"]:
    """A picture of each caption, in one compiled call: batches without end for training.

    Picture ``i`` is that of `render` with ``jax.random.split(key, len(captions))[i]``.

    Args:
        captions: of the grammar; one may occur several times.
        key: random key.
        size: pixels a side: 16, 32 or 64.
        background: grey level in [-1, 1], on all channels.

    Returns:
        (len(captions), size, size, 3) float32 in [-1, 1].

    Raises:
        InputError: no caption, one outside the grammar, another size or background.
    """
    if isinstance(captions, str) or not len(captions):
        raise InputError("shapes.render_batch: give a sequence of one caption or more")
    codes = _checked(tuple(captions), size, background)
    return _draw(jax.random.split(key, len(captions)), codes, jnp.float32(background), size)


def _checked(captions: tuple[str | Caption, ...], size: int, background: float) -> Codes:
    if size not in SIZES:
        raise InputError(f"shapes.render: size is {size}; it must be one of {SIZES}")
    if not -1.0 <= background <= 1.0:
        raise InputError(f"shapes.render: background is {background}; it must lie in [-1, 1]")
    return encode(tuple(parse(caption) for caption in captions))


@partial(jax.jit, static_argnames="size")
def _draw(
    keys: Shaped[Array, " n *key"], codes: Codes, background: Float[Array, ""], size: int
) -> Float[Array, "n size size 3"]:
    return jax.vmap(lambda key, code: _scene(key, code, background, size))(keys, codes)


def _scene(
    key: PRNGKeyArray, codes: Codes, background: Float[Array, ""], size: int
) -> Float[Array, "size size 3"]:
    places = place(key, codes)
    grid = pixel_centres(jnp)

    def covered(right, down, radius, shape, present):
        across, along = jnp.meshgrid(grid - right, grid - down)
        return present * coverage(jnp, across, along, radius)[shape]

    shares = jax.vmap(covered)(*places, codes.shapes, codes.present)
    colours = jnp.asarray(np.array([PALETTE[colour] for colour in COLOURS]))[codes.colours]
    # Objects do not meet: their shares of a pixel add up to at most one.
    drawn = jnp.einsum("ohw,oc->hwc", shares, colours - background)
    return averaged(background + drawn, size).astype(jnp.float32)
