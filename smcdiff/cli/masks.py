"""Which pixels of an image are observed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from smcdiff.cli.images import read_file
from smcdiff.errors import InputError


def read_mask(file: Path, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w c"]:
    """Which pixels are observed, from a PNG or .npy file: white, or 1, is observed.

    Args:
        file: the file; (h, w) is spread over the channels, (h, w, c) masks each on its own.
        shape: (h, w, c) of the image.

    Raises:
        InputError: an unreadable file, a wrong shape, values that are neither 0 nor 1 (255), or
            nothing observed.
    """
    values = read_file(file)
    if values.ndim == 3 and shape[-1] == 1 and np.all(values == values[..., :1]):
        values = values[..., 0]  # a grey mask saved in colours
    if values.ndim == 2:
        values = np.broadcast_to(values[..., None], (*values.shape, shape[-1]))
    if values.shape != shape:
        raise InputError(
            f"{file}: a mask of shape {values.shape} for an image of shape {shape}; give {shape},"
            f" or {shape[:2]} for all channels together"
        )
    if values.dtype != bool and not _are_all(values, (0, 1)):
        if not _are_all(values, (0, 255)):
            raise InputError(
                f"{file}: a mask holds 0 (hidden) and 1 or 255 (observed) only, without NaN"
            )
        values = values / 255
    mask = values.astype(bool)
    if not mask.any():
        raise InputError(f"{file}: every pixel is masked; leave at least one observed (white, 1)")
    return mask


def _are_all(values: np.ndarray, numbers: tuple[int, int]) -> bool:
    return values.dtype.kind in "iuf" and bool(np.all(np.isin(values, numbers)))


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
        "centre": (slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)),
    }.get(hide, (None, None))
    if rows is None:
        raise InputError(f"--hide {hide}: choose from {', '.join(HIDDEN)} or random")
    observed = np.ones(shape, bool)
    observed[rows, columns] = False
    return observed


def box_mask(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> Bool[np.ndarray, "h w c"]:
    """A mask that hides a box: its first row, its first column, its height and width.

    Raises:
        InputError: a box that is empty or not inside the image.
    """
    row, column, height, width = box
    fits = 0 <= row < row + height <= shape[0] and 0 <= column < column + width <= shape[1]
    if not fits:
        raise InputError(
            f"--box {row} {column} {height} {width}: not inside an image of {shape[0]} x"
            f" {shape[1]}; give the first row, the first column, the height and the width"
        )
    observed = np.ones(shape, bool)
    observed[row : row + height, column : column + width] = False
    return observed


def read_channels(text: str, count: int) -> Bool[np.ndarray, " c"]:
    """Which channels are observed, from the numbers of those that are hidden, such as ``0,2``.

    Raises:
        InputError: not numbers of channels, or all of them.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) < count for part in parts):
        raise InputError(
            f"--hide-channels {text}: give numbers from 0 to {count - 1}, for example 0,2"
        )
    observed = np.ones(count, bool)
    observed[[int(part) for part in parts]] = False
    if not observed.any():
        raise InputError(f"--hide-channels {text}: every channel is hidden; leave one observed")
    return observed
