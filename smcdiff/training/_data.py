"""Images for training, from .npz, .npy, idx or a folder of PNG files; and their order."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from smcdiff.base._files import check_file, open_npz, read_npy
from smcdiff.base._pixels import read_picture, to_unit_range
from smcdiff.errors import InputError
from smcdiff.training.config import TrainConfig


class LabelledImages(NamedTuple):
    """Images to learn from.

    Attributes:
        images: uint8 (n, h, w, c), held-out ones included.
        labels: (n,) classes, or None.
        num_classes: how many classes there are.
        used: which images are learned from.
    """

    images: np.ndarray
    labels: np.ndarray | None
    num_classes: int
    used: np.ndarray

    def batch(self, step: int, config: TrainConfig) -> tuple[Array, Array | None]:
        """Images in [-1, 1] and labels of one step."""
        chosen = self.used[batch_indices(step, config.batch_size, len(self.used), config.seed)]
        labels = None if self.labels is None else jnp.asarray(self.labels[chosen])
        return jnp.asarray(to_unit_range(self.images[chosen])), labels

    def partly_hidden(self, step: int, config: TrainConfig) -> tuple[Array, Array | None]:
        """As `batch`; ``num_classes`` stands for a label that is hidden."""
        clean, labels = self.batch(step, config)
        if labels is not None:
            share, seed = config.label_dropout, config.seed
            hidden = hide_labels(np.asarray(labels), share, self.num_classes, step, seed)
            labels = jnp.asarray(hidden)
        return clean, labels


def load_images(path: str | Path) -> np.ndarray:
    """Images as uint8, (n, h, w, c).

    Args:
        path: an .npz (array ``x_train``, ``images`` or its only one), an .npy, an idx file (MNIST's
            format) or a folder of PNG files of one size. An .npy and an idx file are mapped into
            memory, so that they may be larger than it.

    Returns:
        uint8 (n, h, w, c).

    Raises:
        InputError: nothing there, or arrays that are not 8-bit images.
    """
    path = Path(path)
    if path.is_dir():
        images = _folder(path)
    elif path.suffix == ".npz":
        with open_npz(path) as arrays:
            names = [n for n in ("x_train", "images") if n in arrays.names] or arrays.names
            if len(names) != 1:
                raise InputError(f"{path}: arrays {names}; name the one with the images 'images'")
            images = arrays[names[0]]
    elif path.suffix == ".npy":
        images = read_npy(path, mapped=True)
    else:
        images = _idx(path)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[1] <= 4 < images.shape[3]:
        raise InputError(
            f"{path}: images of shape {images.shape}, but channels come last, (n, h, w, c); turn"
            " them with numpy.moveaxis(images, 1, -1)"
        )
    if images.ndim != 4 or images.dtype != np.uint8 or not images.size:
        raise InputError(
            f"{path}: images have shape {images.shape} and type {images.dtype}; they must be uint8"
            " of shape (n, h, w) or (n, h, w, c)"
        )
    some = images[:: max(1, len(images) // 1000)]
    if len(some) > 1 and np.all(some == images[0]):
        raise InputError(f"{path}: all images are the same; there is nothing to learn")
    if images.shape[-1] == 4 and np.all(some[..., 3] == 255):
        raise InputError(
            f"{path}: the fourth channel is 255 everywhere, as an opaque alpha, and there is"
            " nothing to learn of it; give images[..., :3]"
        )
    return images


def check_count(path: str | Path, count: int, batch: int) -> None:
    """Raises ``InputError`` where there are too few images to learn from and to hold out."""
    if count < 2:
        raise InputError(
            f"{path}: one image; give two at the very least, for one is held out, and thousands to"
            " learn a prior from"
        )
    if count < 2 * batch:
        raise InputError(
            f"{path}: {count} images are too few for batches of {batch}; give more, or a"
            f" --batch-size of at most {count // 2}"
        )


def load_labels(path: str | Path, count: int) -> np.ndarray:
    """Class labels, (count,) int32 from 0.

    Args:
        path: an .npz with an array ``y_train`` or ``labels``, or an idx file whose name has
            ``images-idx3``, beside which one with ``labels-idx1`` lies.
        count: number of images.

    Returns:
        (count,) int32.

    Raises:
        InputError: no such array, or one that is not a label from 0 for each image.
    """
    path = Path(path)
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    if beside != path and beside.is_file():
        name, labels = beside.name, _idx(beside)
    elif path.suffix != ".npz":
        raise InputError(f"{path}: labels need an .npz with an array 'y_train' or 'labels'")
    else:
        with open_npz(path) as arrays:
            names = [name for name in ("y_train", "labels") if name in arrays.names]
            if not names:
                raise InputError(f"{path}: no array 'y_train' or 'labels', only {arrays.names}")
            name, labels = names[0], arrays[names[0]]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: '{name}' has shape {labels.shape} and type {labels.dtype}; there must be"
            f" a class from 0 for each of the {count} images"
        )
    classes = np.unique(labels)
    if len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes))):
        raise InputError(
            f"{path}: '{name}' has {len(classes)} classes from {classes[0]} to {classes[-1]}; there"
            " must be two or more, numbered from 0 without gaps"
        )
    return labels.astype(np.int32)


def split(count: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of ``count`` images are learned from, and which held out, at random.

    A sixtieth is held out, of fewer than 3,840 images a sixth.

    The choice depends on the count alone: a run that continues another must not see its held-out
    images. At random, for data are often sorted by class.
    """
    order = np.random.default_rng(0).permutation(count)
    held_out = count // 60 if count >= 60 * 64 else max(1, count // 6)
    if count - held_out < batch:
        raise InputError(
            f"train: {count} images, {held_out} of them held out, do not fill a batch of {batch};"
            " use a smaller --batch-size"
        )
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def hide_labels(labels: np.ndarray, share: float, none: int, step: int, seed: int) -> np.ndarray:
    """The labels of batch ``step``, a random share of them replaced by ``none``."""
    return np.where(is_hidden(len(labels), share, step, seed), np.int32(none), labels)


def is_hidden(count: int, share: float, step: int, seed: int) -> np.ndarray:
    """Of which items of batch ``step`` the condition is hidden, a random share; (count,) bool."""
    return np.random.default_rng([seed, step, count]).random(count) < share


def _idx(path: Path) -> np.ndarray:
    """An idx file of bytes (LeCun's format: 0, 0, 8, axes, then big-endian lengths)."""
    check_file(path, "a file or folder of images")
    with path.open("rb") as file:
        head = file.read(4)
        if len(head) < 4 or head[:3] != b"\x00\x00\x08" or not 1 <= head[3] <= 4:
            raise InputError(
                f"{path}: neither .npz, .npy nor an idx file of bytes (unpack a .gz first)"
            )
        lengths = file.read(4 * head[3])
    whole = len(lengths) == 4 * head[3]
    shape = tuple(int(n) for n in np.frombuffer(lengths, ">u4")) if whole else ()
    offset = 4 + len(lengths)
    if not whole or 0 in shape or path.stat().st_size != offset + math.prod(shape):
        raise InputError(
            f"{path}: the file's size does not fit its shape {shape}; it is truncated, so copy it"
            " again"
        )
    return np.memmap(path, np.uint8, "r", offset, shape)


def _folder(path: Path) -> np.ndarray:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".png")
    if not files:
        raise InputError(f"{path}: the folder has no PNG files; convert the images to PNG")
    images = [read_picture(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"{file}: shape {image.shape}, but the first is {images[0].shape}; crop or convert"
                " them to one size and number of channels"
            )
    return np.stack(images)


def batch_indices(step: int, batch: int, count: int, seed: int) -> np.ndarray:
    """Which images batch ``step`` holds: a new permutation each epoch, a function of the seed."""
    per_epoch = count // batch
    epoch, index = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[index * batch : (index + 1) * batch]
