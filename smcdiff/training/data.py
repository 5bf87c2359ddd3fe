"""Images for training, from .npz, .npy or a folder of PNG files; and their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smcdiff.errors import InputError


def load_images(path: str | Path) -> np.ndarray:
    """Images as uint8, (n, h, w, c).

    Args:
        path: an .npz (array ``x_train``, ``images`` or its only one), an .npy, or a folder of PNG
            files of one size.

    Returns:
        uint8 (n, h, w, c).

    Raises:
        InputError: nothing there, or arrays that are not 8-bit images.
    """
    path = Path(path)
    if path.is_dir():
        images = _folder(path)
    elif not path.is_file():
        raise InputError(f"{path}: no such file or folder of images")
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            names = [n for n in ("x_train", "images") if n in arrays] or arrays.files
            if len(names) > 1:
                raise InputError(f"{path}: name one of the arrays {names} 'images'")
            images = arrays[names[0]]
    else:
        images = np.load(path)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.dtype != np.uint8:
        raise InputError(
            f"{path}: images have shape {images.shape} and type {images.dtype}; they must be uint8"
            " of shape (n, h, w) or (n, h, w, c)"
        )
    return images


def _folder(path: Path) -> np.ndarray:
    from PIL import Image

    files = sorted(path.glob("*.png"))
    if not files:
        raise InputError(f"{path}: the folder has no PNG files")
    images = [np.asarray(Image.open(file)) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(f"{file}: shape {image.shape}, but the first is {images[0].shape}")
    return np.stack(images)


def batch_indices(step: int, batch: int, count: int, seed: int) -> np.ndarray:
    """Which images batch ``step`` holds: a new permutation each epoch, a function of the seed."""
    per_epoch = count // batch
    epoch, index = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[index * batch : (index + 1) * batch]
