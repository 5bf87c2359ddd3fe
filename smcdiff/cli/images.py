"""Reading the user's images and masks, and checking them before anything long starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from smcdiff.errors import InputError


def read_image(
    file: Path, value_range: tuple[float, float] | None, margin: float
) -> Float[np.ndarray, "h w c"]:
    """An image in [-1, 1] from a PNG or .npy file.

    Args:
        file: an 8-bit PNG (grey or colour), or an .npy array (h, w) or (h, w, c).
        value_range: the values of black and white in the file; None is 0 and 255 for 8-bit data,
            -1 and 1 for floats.
        margin: by how much noise may take values out of [-1, 1].

    Returns:
        float32 (h, w, c).

    Raises:
        InputError: an unreadable file, a wrong shape, NaN, or values out of range.
    """
    pixels = _read(file)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        raise InputError(f"{file}: an array of shape {pixels.shape}; give (h, w) or (h, w, c)")
    if not np.issubdtype(pixels.dtype, np.number) or np.iscomplexobj(pixels):
        raise InputError(f"{file}: values of type {pixels.dtype}; give real numbers")
    if not np.all(np.isfinite(pixels)):
        raise InputError(
            f"{file}: {int(np.sum(~np.isfinite(pixels)))} values are NaN or infinite; put any"
            " number there and hide it with --mask"
        )
    assumed = value_range is None
    low, high = ((0, 255) if pixels.dtype == np.uint8 else (-1, 1)) if assumed else value_range
    if not low < high:
        raise InputError(f"--range {low:g} {high:g}: the second value must be the larger")
    least, most = float(pixels.min()), float(pixels.max())
    if assumed and pixels.dtype != np.uint8 and least >= 0 and least < most <= 1:
        raise InputError(
            f"{file}: values from {least:g} to {most:g} may be in [0, 1] or in [-1, 1]; say which"
            " with --range 0 1 or --range -1 1"
        )
    scaled = 2 * (pixels.astype(np.float32) - low) / (high - low) - 1
    if np.abs(scaled).max() > 1 + margin:
        raise InputError(
            f"{file}: values from {least:g} to {most:g} are outside [{low:g}, {high:g}] by more"
            " than noise explains; give the values of black and white with --range LOW HIGH"
        )
    return scaled.astype(np.float32)


def _read(file: Path) -> np.ndarray:
    if not file.is_file():
        raise InputError(f"{file}: no such file; give a PNG or an .npy file")
    try:
        if file.suffix.lower() == ".npy":
            return np.load(file, allow_pickle=False)
        from PIL import Image

        with Image.open(file) as picture:
            grey = picture.mode in ("1", "L", "LA", "I;16", "I", "F")
            return np.asarray(picture.convert("L" if grey else "RGB"))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: not a readable PNG or .npy image ({reason})") from error


def fit_shape(image: np.ndarray, shape: tuple[int, ...], file: Path) -> np.ndarray:
    """The image in the shape that is needed; colour becomes grey, nothing is resized.

    Raises:
        InputError: another size or number of channels.
    """
    if image.shape[-1] == 3 and shape[-1] == 1:
        image = (image @ np.array([0.299, 0.587, 0.114], image.dtype))[..., None]
    if image.shape != shape:
        raise InputError(f"{file}: shape {image.shape}, but {shape} is needed; resize or crop it")
    return image


def read_mask(file: Path, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w c"]:
    """Which pixels are observed, from a PNG or .npy file: white, or 1, is observed.

    Args:
        file: the file; (h, w) is spread over the channels.
        shape: (h, w, c) of the image.

    Raises:
        InputError: an unreadable file, a wrong shape, values that are neither 0 nor 1 (255), or
            nothing observed.
    """
    values = _read(file)
    if values.ndim == 3 and values.shape[-1] != shape[-1]:
        values = values[..., 0]
    if values.ndim == 2:
        values = np.broadcast_to(values[..., None], (*values.shape, shape[-1]))
    if values.shape != shape:
        raise InputError(f"{file}: a mask of shape {values.shape} for an image of shape {shape}")
    if values.dtype != bool and not np.all(np.isin(values, (0, 1))):
        if not np.all(np.isin(values, (0, 255))):
            raise InputError(
                f"{file}: a mask holds 0 (hidden) and 1 or 255 (observed) only, without NaN"
            )
        values = values / 255
    mask = values.astype(bool)
    if not mask.any():
        raise InputError(f"{file}: every pixel is masked; leave at least one observed (white, 1)")
    return mask


HIDDEN = ("left", "right", "top", "bottom", "centre")


def standard_mask(hide: str, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w c"]:
    """A mask that hides one half of the image, or the central quarter of its area.

    Raises:
        InputError: an unknown part.
    """
    height, width = shape[:2]
    rows, columns = {
        "left": (slice(None), slice(width // 2)),
        "right": (slice(None), slice(width // 2, None)),
        "top": (slice(height // 2), slice(None)),
        "bottom": (slice(height // 2, None), slice(None)),
        "centre": (slice(height // 4, -(height // 4)), slice(width // 4, -(width // 4))),
    }.get(hide, (None, None))
    if rows is None:
        raise InputError(f"--hide {hide}: choose from {', '.join(HIDDEN)}")
    observed = np.ones(shape, bool)
    observed[rows, columns] = False
    return observed
