"""8-bit pixels and the [-1, 1] in which image priors work; and reading pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from smcdiff.base._files import check_file
from smcdiff.errors import InputError, first_line


def to_unit_range(pixels: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """0 to 255 as float32 from -1 to 1."""
    return pixels.astype(np.float32) / 127.5 - 1.0


def to_bytes(images: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """-1 to 1 as 0 to 255; what lies outside is clipped, and NaN is black."""
    clipped = np.clip(np.nan_to_num(images, nan=-1.0), -1.0, 1.0)
    return np.round((clipped + 1.0) * 127.5).astype(np.uint8)


def read_picture(file: Path) -> Shaped[np.ndarray, "h w *c"]:
    """The pixels of a picture as they are: (h, w) grey, (h, w, 3) colours.

    Args:
        file: a PNG, or another format that Pillow reads.

    Returns:
        uint8, where the picture has no more than 8 bits.

    Raises:
        InputError: no file, not a picture, or one with transparent pixels.
    """
    from PIL import Image

    check_file(file, "a PNG or .npy file")
    try:
        with Image.open(file) as picture:
            if picture.has_transparency_data:
                if picture.convert("RGBA").getextrema()[-1] != (255, 255):
                    raise InputError(
                        f"{file}: has transparent pixels, whose colour is unknown; save it without"
                        " transparency"
                    )
                picture = picture.convert("L" if picture.mode == "LA" else "RGB")
            if picture.mode == "1":
                picture = picture.convert("L")
            elif picture.mode not in ("L", "RGB", "F") and not picture.mode.startswith("I"):
                picture = picture.convert("RGB")  # a palette, say
            return np.asarray(picture)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{file}: cannot be read as a picture ({first_line(error)}); give a PNG or .npy file"
        ) from error
