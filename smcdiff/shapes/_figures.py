"""The three shapes as distances, for the renderer (JAX) and for the checker's templates (NumPy).

Each shape is the set of points whose gauge is at most its inner radius. Its centre is its centroid,
and its size is the radius of the circle of its size class: squares and triangles have inner radii
0.8 and 0.62 of it, so that no shape reaches farther than `REACH` radii from its centre.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from smcdiff.shapes.grammar import Shape

SHAPES = tuple(Shape)
"""The order in which the shapes are numbered."""
INNER_RADII = (1.0, 0.8, 0.62)
"""Of circle, square, triangle; the circle's radius is 1."""
AREAS = (math.pi, 4.0 * 0.8**2, 3.0 * math.sqrt(3.0) * 0.62**2)
REACH = 2.0 * 0.62
"""Of the triangle's corners, which lie farthest from the centre."""
DRAWN_AT = 64
"""Pixels a side of the grid on which shapes are drawn; smaller pictures are averages of it."""


def coverage(xp: ModuleType, right: Any, down: Any, radius: Any) -> Any:
    """The covered share of each pixel of the grid of `DRAWN_AT`, for each of the three shapes.

    To within some hundredths: an edge is taken to be straight and upright within a pixel.

    Args:
        xp: ``numpy`` or ``jax.numpy``.
        right: horizontal distance of the pixels from the centre, in sides of the picture.
        down: the vertical one, of the same shape.
        radius: of the same shape, or a number.

    Returns:
        (3, ...) in [0, 1].
    """
    gauges = (
        xp.hypot(right, down),
        xp.maximum(abs(right), abs(down)),
        xp.maximum(down, math.sqrt(0.75) * abs(right) - 0.5 * down),
    )
    insides = [inner * radius - gauge for inner, gauge in zip(INNER_RADII, gauges, strict=True)]
    return xp.clip(0.5 + DRAWN_AT * xp.stack(insides), 0.0, 1.0)


def pixel_centres(xp: ModuleType) -> Any:
    """Where the pixels of the grid lie along one side, in sides of the picture: (64,)."""
    return (xp.arange(DRAWN_AT) + 0.5) / DRAWN_AT


def averaged(images: Any, size: int) -> Any:
    """Pictures (..., 64, 64, c) as averages over blocks: (..., size, size, c)."""
    block = DRAWN_AT // size
    *lead, _, _, channels = images.shape
    return images.reshape(*lead, size, block, size, block, channels).mean((-4, -2))
