"""Whether a picture shows what a caption says: exact scoring, without a learned part.

The background is the median colour. Each pixel is explained as background with a share of one of
the six colours; connected pixels of one colour are an object, and its shape is that whose template,
of the object's own area and centre, differs least. A picture is refused as a whole where something
in it is no such object: another colour, or a shape that no template fits.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from smcdiff.errors import InputError
from smcdiff.shapes._figures import AREAS, SHAPES, averaged, coverage, pixel_centres
from smcdiff.shapes._layout import COLOURS
from smcdiff.shapes.grammar import Caption, parse
from smcdiff.shapes.renderer import PALETTE, SIZES
from smcdiff.shapes.scene import Scene, SeenObject

SPECK = 0.005
"""Areas below this, in pictures, are overlooked; the smallest drawn object has 0.022."""
MOST_STRAY = 0.5
"""How far a pixel may be from all mixtures of background and one colour, in data units."""
MOST_TINT = 0.3
"""How much the channels of a grey background may differ."""
BLUR = 0.7 / 32
"""Standard deviation of the blurred templates, in sides of the picture."""
MOST_MISFIT = 0.1
"""Squared difference from the best template, relative to its squares: up to 0.04 of drawn objects
with noise of 0.1; two that touch, halves, rings and triangles on their heads have 0.14 or more."""


class _UnreadableError(Exception):
    """What in a picture is no object of the grammar."""


def check(image: ArrayLike, caption: str | Caption) -> bool:
    """Whether the picture shows what the caption says: all of it, and nothing else.

    Args:
        image: (size, size, 3) in [-1, 1], of 16, 32 or 64 pixels a side; values may lie outside.
        caption: of the grammar.

    Returns:
        True or False; False where a value is not finite.

    Raises:
        InputError: an image of another shape, or a caption outside the grammar.
    """
    caption = parse(caption)
    scene = read(image)
    return scene is not None and not scene.contradiction(caption)


def explain(image: ArrayLike, caption: str | Caption) -> str:
    """Why `check` accepts the picture or not, in a sentence.

    Args:
        image: as for `check`.
        caption: of the grammar.

    Raises:
        InputError: an image of another shape, or a caption outside the grammar.
    """
    caption = parse(caption)
    try:
        scene = _read(_checked(image))
    except _UnreadableError as reason:
        return str(reason)
    return scene.contradiction(caption) or f"the picture shows {caption}"


def read(image: ArrayLike) -> Scene | None:
    """What is seen in a picture.

    Args:
        image: as for `check`.

    Returns:
        Its objects; None where something in it is of no colour or shape of the grammar, the
        background is not grey, or a value is not finite.

    Raises:
        InputError: an image of another shape.
    """
    try:
        return _read(_checked(image))
    except _UnreadableError:
        return None


def _checked(image: ArrayLike) -> Float[np.ndarray, "size size 3"]:
    pixels = np.asarray(image)
    sizes = [(size, size, 3) for size in SIZES]
    if pixels.shape not in sizes or not jnp.issubdtype(pixels.dtype, jnp.floating):
        raise InputError(
            f"shapes.check: the image has shape {pixels.shape} and type {pixels.dtype}; it must be"
            f" one picture of floats in [-1, 1], of shape {', '.join(map(str, sizes))}"
        )
    return pixels.astype(np.float64)


def _read(image: Float[np.ndarray, "size size 3"]) -> Scene:
    if not np.all(np.isfinite(image)):
        number = int(np.sum(~np.isfinite(image)))
        raise _UnreadableError(f"{number} values of the picture are not finite")
    background = np.median(image, axis=(0, 1))
    if np.ptp(background) > MOST_TINT:
        raise _UnreadableError("the background is not grey")
    shares, colours = _explained(image - background, background)
    objects = []
    for number in range(len(COLOURS)):
        is_colour = (colours == number) & (shares[number] >= 0.5)
        for component in _components(is_colour):
            objects.append(_recognised(component, is_colour, shares[number], number))
    return Scene(tuple(objects))


def _explained(
    difference: Float[np.ndarray, "size size 3"], background: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "6 size size"], Int[np.ndarray, "size size"]]:
    """The share that each colour would have in each pixel, and the colour that explains it best."""
    colours = np.array([PALETTE[colour] for colour in COLOURS]) - background
    shares = np.einsum("hwc,oc->ohw", difference, colours) / np.sum(colours**2, -1)[:, None, None]
    parts = np.clip(shares, 0.0, 1.0)[..., None] * colours[:, None, None]
    left = np.linalg.norm(difference[None] - parts, axis=-1)
    for stray in _components(left.min(axis=0) > MOST_STRAY):
        raise _UnreadableError(f"something {_where(stray)} has none of the six colours")
    return shares, left.argmin(axis=0)


def _components(mask: Bool[np.ndarray, "size size"]) -> list[Bool[np.ndarray, "size size"]]:
    """Connected parts (by edges, not corners) that are larger than specks."""
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    parts = [labels == label for label in range(1, labels.max() + 1)]
    return [part for part in parts if part.mean() > SPECK]


def _where(mask: Bool[np.ndarray, "size size"]) -> str:
    row, column = (round(float(place)) for place in np.argwhere(mask).mean(axis=0))
    return f"at row {row}, column {column}"


def _recognised(
    component: Bool[np.ndarray, "size size"],
    is_colour: Bool[np.ndarray, "size size"],
    share: Float[np.ndarray, "size size"],
    colour: int,
) -> SeenObject:
    """The object that a component is."""
    size = len(component)
    # The rim of half-covered pixels belongs to the object, what is of its neighbours does not.
    grown = np.asarray(ndimage.binary_dilation(component, iterations=max(1, size // 32)), bool)
    region = grown & (component | ~is_colour)
    covered = np.where(region, share, 0.0)
    area = covered.mean()
    places = (np.arange(size) + 0.5) / size
    right, down = covered.sum(0) @ places, covered.sum(1) @ places
    right, down = right / covered.sum(), down / covered.sum()
    radii = np.sqrt(area / np.array(AREAS))
    templates = _templates(right, down, radii, size)
    misfits = np.sum((templates - covered) ** 2, axis=(-2, -1), where=region)
    misfits = (misfits / np.sum(templates[0] ** 2, axis=(-2, -1))).min(axis=0)
    best = int(misfits.argmin())
    if misfits[best] > MOST_MISFIT:
        raise _UnreadableError(
            f"the {COLOURS[colour].value} object {_where(component)} is none of the three shapes"
        )
    return SeenObject(COLOURS[colour], SHAPES[best], float(right), float(down), float(radii[best]))


def _templates(
    right: float, down: float, radii: Float[np.ndarray, "3"], size: int
) -> Float[np.ndarray, "2 3 size size"]:
    """The three shapes as the renderer draws them, and blurred: a blurred square is no circle."""
    grid = pixel_centres(np)
    across, along = np.meshgrid(grid - right, grid - down)
    drawn = [coverage(np, across, along, radius)[place] for place, radius in enumerate(radii)]
    sharp = averaged(np.stack(drawn)[..., None], size)[..., 0]
    return np.stack([sharp, ndimage.gaussian_filter(sharp, (0.0, BLUR * size, BLUR * size))])
