"""The user's images, masks and matrices: read, and checked before anything long starts.

What is read has a name for messages: that of its file, and in a catalogue that of its item.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex, Float, Shaped

from smcdiff.base._files import read_npy
from smcdiff.base._pixels import read_picture
from smcdiff.cli.output import note
from smcdiff.errors import InputError

_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


def read_file(file: Path) -> Shaped[np.ndarray, "*shape"]:
    """The array of an .npy file, or the pixels of a picture.

    Raises:
        InputError: an unreadable file.
    """
    return read_npy(file) if file.suffix.lower() == ".npy" else read_picture(file)


def read_array(file: Path, mapped: bool = False) -> Shaped[np.ndarray, "*shape"]:
    """The array of an .npy file; ``mapped`` maps it into memory instead of reading it.

    Raises:
        InputError: an unreadable file, or one of another type.
    """
    if file.suffix.lower() != ".npy":
        raise InputError(f"{file}: not an .npy file; write the numbers with numpy.save")
    return read_npy(file, mapped)


def to_image(
    name: str,
    pixels: Shaped[np.ndarray, "*pixels"],
    shape: tuple[int, ...],
    value_range: tuple[float, float] | None,
    margin: float,
    hidden: Bool[np.ndarray, "h w c"] | None = None,
) -> Float[np.ndarray, "h w c"]:
    """Pixels as an image in [-1, 1]; colour becomes grey, nothing is resized.

    Args:
        name: of the image.
        pixels: (h, w), or (h, w, c) with the channels last. Four channels where one or three are
            wanted are red, green, blue and an alpha, which must be opaque and is dropped.
        shape: (h, w, c) that is wanted.
        value_range: the values of black and white; None is 0 and 255 for 8-bit data, -1 and 1 for
            floats.
        margin: by how much noise may take values out of [-1, 1].
        hidden: values that may be anything, for they are not used.

    Returns:
        float32 of the shape that is wanted.

    Raises:
        InputError: a wrong shape or type, NaN, or values out of range.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not pixels.size:
        raise InputError(f"{name}: an array of shape {pixels.shape}; give (h, w) or (h, w, c)")
    if _has_alpha(pixels.shape, shape):
        pixels = _without_alpha(name, pixels, value_range)
    _check_shape(name, pixels.shape, shape)
    if hidden is not None:
        if hidden.shape != pixels.shape:  # colours that become grey
            hidden = np.broadcast_to(hidden.all(axis=-1, keepdims=True), pixels.shape)
        pixels = np.where(hidden, pixels[~hidden][0], pixels)
    _check_numbers(name, pixels, "hide them with --mask")
    low, high = _range(name, pixels) if value_range is None else value_range
    if not (low < high and np.isfinite(high - low)):
        raise InputError(
            f"--range {low:g} {high:g}: give two numbers, the second the larger, for example 0 1"
        )
    with np.errstate(over="ignore"):  # infinity is out of range, too
        scaled = 2 * (pixels.astype(np.float64) - low) / (high - low) - 1
    if np.abs(scaled).max() > 1 + margin:
        raise InputError(
            f"{name}: values from {pixels.min():g} to {pixels.max():g} are outside [{low:g},"
            f" {high:g}] by more than noise explains; give the values of black and white with"
            " --range LOW HIGH"
        )
    if pixels.shape != shape:
        scaled = (scaled @ np.array(_GREY))[..., None]
    return scaled.astype(np.float32)


def read_image(
    file: Path, shape: tuple[int, ...], value_range: tuple[float, float] | None, margin: float
) -> Float[np.ndarray, "h w c"]:
    """`to_image` of a picture or an .npy file."""
    pixels = read_file(file)
    image = to_image(str(file), pixels, shape, value_range, margin)
    note_alpha(str(file), pixels.shape, shape)
    return image


def note_alpha(name: str, pixels: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Says what is assumed of four channels, if they are taken for colours and an alpha."""
    if _has_alpha(pixels, shape):
        note(
            f"{name}: four channels are taken for red, green, blue and an opaque alpha, which is"
            " dropped"
        )


def _has_alpha(pixels: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether the last of four channels is taken for an alpha: an image has one or three."""
    return len(pixels) == 3 and pixels[-1] == 4 and shape[-1] in (1, 3)


def _without_alpha(name: str, pixels: np.ndarray, value_range) -> np.ndarray:
    """Red, green and blue of pixels whose alpha is opaque everywhere."""
    if np.issubdtype(pixels.dtype, np.integer):
        opaque = np.iinfo(pixels.dtype).max
    else:
        opaque = 1.0 if value_range is None else value_range[1]
    if not np.all(pixels[..., 3] == opaque):
        raise InputError(
            f"{name}: four channels are taken for red, green, blue and an alpha, which is not"
            f" {opaque:g} (opaque) everywhere; give the channels that the prior has"
        )
    return pixels[..., :3]


def _check_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raises ``InputError`` unless pixels have the shape that is wanted, or more colours."""
    if found == wanted or (found[:2] == wanted[:2] and (found[2], wanted[2]) == (3, 1)):
        return
    if found[1:] == wanted[:2]:
        raise InputError(
            f"{name}: shape {found}, but channels come last: {wanted}; turn it with"
            " numpy.moveaxis(image, 0, -1)"
        )
    raise InputError(f"{name}: shape {found}, but {wanted} is needed; resize or crop it")


def _range(name: str, pixels: np.ndarray) -> tuple[float, float]:
    """Black and white, where the type and the values of the pixels leave no doubt."""
    least, most = float(pixels.min()), float(pixels.max())
    whole = np.issubdtype(pixels.dtype, np.integer)
    usual = (0.0, 255.0) if pixels.dtype == np.uint8 else (-1.0, 1.0)
    if whole and pixels.dtype != np.uint8:
        largest = 65535 if most > 255 else 255
        raise InputError(
            f"{name}: values of type {pixels.dtype}, from {least:g} to {most:g}, do not say what is"
            f" white; say so with --range, for example --range 0 {largest}"
        )
    if least >= 0 and least < most <= 1:
        raise InputError(
            f"{name}: values from {least:g} to {most:g} may be in [0, 1] or in [{usual[0]:g},"
            f" {usual[1]:g}]; say which with --range 0 1 or --range {usual[0]:g} {usual[1]:g}"
        )
    return usual


def _check_numbers(name: str, values: np.ndarray, remedy: str) -> None:
    """Raises ``InputError`` unless the values are real and finite; the remedy is for NaN."""
    if values.dtype.kind not in "iuf":
        raise InputError(f"{name}: values of type {values.dtype}; give real numbers")
    finite = np.abs(values) <= np.finfo(np.float32).max
    if not np.all(finite):
        raise InputError(f"{name}: {np.sum(~finite)} values are NaN or infinite; {remedy}")


def _in_shape(name: str, values: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
    """The array in this shape; None is any size, and one channel needs no axis."""
    if len(shape) == 3 and values.ndim == 2 and shape[-1] == 1:
        values = values[..., None]
    fits = values.ndim == len(shape) and all(
        own == size or size is None for own, size in zip(values.shape, shape, strict=True)
    )
    if not fits or not values.size:
        needed = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"{name}: an array of shape {values.shape}; it must be ({needed})")
    return values


def to_numbers(
    name: str, values: Shaped[np.ndarray, "*values"], shape: tuple[int | None, ...]
) -> Float[np.ndarray, "..."]:
    """Finite real numbers: a matrix, a filter, observations that are no image.

    Args:
        name: of the array.
        values: the array.
        shape: what it must have; None is any size.

    Returns:
        float32.

    Raises:
        InputError: another shape, NaN, or other types.
    """
    values = _in_shape(name, values, shape)
    _check_numbers(name, values, "write finite numbers")
    return values.astype(np.float32)


def read_numbers(file: Path, shape: tuple[int | None, ...]) -> Float[np.ndarray, "..."]:
    """`to_numbers` of an .npy file."""
    return to_numbers(str(file), read_array(file), shape)


def to_complex(
    name: str, values: Shaped[np.ndarray, "*values"], shape: tuple[int, ...]
) -> Complex[np.ndarray, "h w c"]:
    """Complex numbers; NaN is left to the caller.

    Raises:
        InputError: another shape, or real numbers.
    """
    values = _in_shape(name, values, shape)
    if not np.iscomplexobj(values):
        raise InputError(
            f"{name}: values of type {values.dtype}, but Fourier coefficients are complex, as"
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
