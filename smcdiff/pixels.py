"""8-bit pixels and the [-1, 1] in which image priors work."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8


def to_unit_range(pixels: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """0 to 255 as float32 from -1 to 1."""
    return pixels.astype(np.float32) / 127.5 - 1.0


def to_bytes(images: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """-1 to 1 as 0 to 255; what lies outside is clipped, and NaN is black."""
    clipped = np.clip(np.nan_to_num(images, nan=-1.0), -1.0, 1.0)
    return np.round((clipped + 1.0) * 127.5).astype(np.uint8)
