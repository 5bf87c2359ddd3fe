"""Reading the user's images, masks and matrices, and checking them before anything long starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex, Float

from smcdiff.base.files import read_npy
from smcdiff.base.pixels import read_picture
from smcdiff.errors import InputError


def read_image(
    file: Path,
    value_range: tuple[float, float] | None,
    margin: float,
    hidden: Bool[np.ndarray, "h w c"] | None = None,
) -> Float[np.ndarray, "h w c"]:
    """An image in [-1, 1] from a PNG or .npy file.

    Args:
        file: a PNG (grey or colour), or an .npy array (h, w) or (h, w, c).
        value_range: the values of black and white in the file; None is 0 and 255 for 8-bit data,
            -1 and 1 for floats.
        margin: by how much noise may take values out of [-1, 1].
        hidden: values that may be anything, for they are not used.

    Returns:
        float32 (h, w, c).

    Raises:
        InputError: an unreadable file, a wrong shape, NaN, or values out of range.
    """
    pixels = _read(file)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not pixels.size:
        raise InputError(f"{file}: an array of shape {pixels.shape}; give (h, w) or (h, w, c)")
    if hidden is not None and hidden.shape[:2] == pixels.shape[:2]:
        if hidden.shape != pixels.shape:  # colours that become grey
            hidden = np.broadcast_to(hidden.all(axis=-1, keepdims=True), pixels.shape)
        pixels = np.where(hidden, pixels[~hidden][0], pixels)
    _check_numbers(file, pixels, "hide them with --mask")
    low, high = _range(file, pixels) if value_range is None else value_range
    if not (low < high and np.isfinite(high - low)):
        raise InputError(
            f"--range {low:g} {high:g}: give two numbers, the second the larger, for example 0 1"
        )
    scaled = 2 * (pixels.astype(np.float64) - low) / (high - low) - 1
    if np.abs(scaled).max() > 1 + margin:
        raise InputError(
            f"{file}: values from {pixels.min():g} to {pixels.max():g} are outside [{low:g},"
            f" {high:g}] by more than noise explains; give the values of black and white with"
            " --range LOW HIGH"
        )
    return scaled.astype(np.float32)


def _range(file: Path, pixels: np.ndarray) -> tuple[float, float]:
    """Black and white, where the type and the values of the pixels leave no doubt."""
    least, most = float(pixels.min()), float(pixels.max())
    whole = np.issubdtype(pixels.dtype, np.integer)
    usual = (0.0, 255.0) if pixels.dtype == np.uint8 else (-1.0, 1.0)
    if whole and pixels.dtype != np.uint8:
        largest = 65535 if most > 255 else 255
        raise InputError(
            f"{file}: values of type {pixels.dtype}, from {least:g} to {most:g}, do not say what is"
            f" white; say so with --range, for example --range 0 {largest}"
        )
    if least >= 0 and least < most <= 1:
        raise InputError(
            f"{file}: values from {least:g} to {most:g} may be in [0, 1] or in [{usual[0]:g},"
            f" {usual[1]:g}]; say which with --range 0 1 or --range {usual[0]:g} {usual[1]:g}"
        )
    return usual


def _read(file: Path) -> np.ndarray:
    return read_npy(file) if file.suffix.lower() == ".npy" else read_picture(file)


def _check_numbers(file: Path, values: np.ndarray, remedy: str) -> None:
    """Raises ``InputError`` unless the values are real and finite; the remedy is for NaN."""
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise InputError(f"{file}: values of type {values.dtype}; give real numbers")
    finite = np.abs(values) <= np.finfo(np.float32).max
    if not np.all(finite):
        raise InputError(f"{file}: {np.sum(~finite)} values are NaN or infinite; {remedy}")


def _read_shape(file: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """The array of an .npy file, of this shape; None is any size, and one channel needs no axis."""
    if file.suffix.lower() != ".npy":
        raise InputError(f"{file}: not an .npy file; write the numbers with numpy.save")
    values = read_npy(file)
    if len(shape) == 3 and values.ndim == 2 and shape[-1] == 1:
        values = values[..., None]
    fits = values.ndim == len(shape) and all(
        own == size or size is None for own, size in zip(values.shape, shape, strict=True)
    )
    if not fits or not values.size:
        needed = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"{file}: an array of shape {values.shape}; it must be ({needed})")
    return values


def read_numbers(file: Path, shape: tuple[int | None, ...]) -> Float[np.ndarray, "..."]:
    """Finite real numbers from an .npy file: a matrix, a filter, observations that are no image.

    Args:
        file: the file.
        shape: what the array must have; None is any size.

    Returns:
        float32.

    Raises:
        InputError: an unreadable file, another shape, NaN, or other types.
    """
    values = _read_shape(file, shape)
    _check_numbers(file, values, "write finite numbers")
    return values.astype(np.float32)


def read_complex(file: Path, shape: tuple[int, ...]) -> Complex[np.ndarray, "h w c"]:
    """Complex numbers from an .npy file; NaN is left to the caller.

    Raises:
        InputError: an unreadable file, another shape, or real numbers.
    """
    values = _read_shape(file, shape)
    if not np.iscomplexobj(values):
        raise InputError(
            f"{file}: values of type {values.dtype}, but Fourier coefficients are complex, as"
            " numpy.fft.fft2(image, axes=(0, 1), norm='ortho') gives them; for a clean image add"
            " --simulate"
        )
    return values


def read_filter(file: Path) -> Float[np.ndarray, "a b"]:
    """A blur's filter: an .npy array as it is, or a grey picture, divided by its sum.

    Raises:
        InputError: an unreadable file, a wrong shape, NaN, or a black picture.
    """
    if file.suffix.lower() == ".npy":
        return read_numbers(file, (None, None))
    values = read_picture(file).astype(np.float32)
    if values.ndim == 3:
        raise InputError(f"{file}: a filter in colours; save it in grey, or as an .npy array")
    if not values.sum() > 0:
        raise InputError(f"{file}: the filter is black everywhere; white pixels are its weights")
    return values / values.sum()


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
        file: the file; (h, w) is spread over the channels, (h, w, c) masks each on its own.
        shape: (h, w, c) of the image.

    Raises:
        InputError: an unreadable file, a wrong shape, values that are neither 0 nor 1 (255), or
            nothing observed.
    """
    values = _read(file)
    if values.ndim == 3 and shape[-1] == 1 and np.all(values == values[..., :1]):
        values = values[..., 0]  # a grey mask saved in colours
    if values.ndim == 2:
        values = np.broadcast_to(values[..., None], (*values.shape, shape[-1]))
    if values.shape != shape:
        raise InputError(
            f"{file}: a mask of shape {values.shape} for an image of shape {shape}; give {shape},"
            f" or {shape[:2]} for all channels together"
        )
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
