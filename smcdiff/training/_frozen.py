"""Frozen features of the pictures that are learned from: of files once, of shapes at every step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from smcdiff.base._files import write_whole
from smcdiff.base._pixels import to_unit_range
from smcdiff.base._progress import Progress, begin, progress_of
from smcdiff.errors import InputError, first_line
from smcdiff.store._picture_reader import EFFICIENTNET, PictureReader
from smcdiff.store.image_features import ImageFeatures
from smcdiff.training._captioned import Captioned, CaptionedFiles
from smcdiff.training.text_config import CaptionedTrainConfig

_AT_ONCE = 256
_SOME = 1000
"""Drawn pictures, for the units of their features."""


class FrozenPictures(NamedTuple):
    """Pictures as towers on frozen features see them.

    Attributes:
        pictures: with their captions.
        reader: the features and their units.
        values: features of all pictures of files; None of such as are drawn.
    """

    pictures: Captioned
    reader: PictureReader
    values: Float[np.ndarray, "n k"] | None

    @classmethod
    def of(
        cls,
        pictures: Captioned,
        features: ImageFeatures,
        file: Path | None,
        progress_bar: bool | Progress = True,
    ) -> FrozenPictures:
        """Computes the features, of files of pictures once.

        Args:
            pictures: what is learned from.
            features: the frozen network.
            file: where the features are kept, or were.
            progress_bar: True shows the progress.

        Raises:
            InputError: a file of other features or of other pictures.
        """
        if isinstance(pictures, CaptionedFiles):
            values = computed(pictures.images, features, file, progress_bar)
            return cls(pictures, PictureReader.of(features, values[pictures.used]), values)
        some = computed(pictures.some(_SOME), features, None, progress_bar)
        return cls(pictures, PictureReader.of(features, some), None)

    def batch(self, step: int, config: CaptionedTrainConfig) -> tuple[Array, Sequence[str]]:
        """Features in standard units, and captions, of one step."""
        if self.values is None or not isinstance(self.pictures, CaptionedFiles):
            clean, captions = self.pictures.batch(step, config)
            return self.reader.seen(clean), captions
        chosen = self.pictures.chosen(step, config)
        seen = self.reader.standard(jnp.asarray(self.values[chosen]))
        return seen, [self.pictures.captions[index] for index in chosen]


def computed(
    images: np.ndarray,
    features: ImageFeatures,
    file: Path | None,
    progress_bar: bool | Progress = True,
) -> Float[np.ndarray, "n k"]:
    """Features of many pictures, out of the file or into it.

    Args:
        images: uint8, or in [-1, 1].
        features: the frozen network.
        file: where they are kept; None is nowhere.
        progress_bar: True shows the progress.

    Raises:
        InputError: a file of other features or of other pictures, or one that cannot be read.
    """
    about = {
        "image_features": EFFICIENTNET,
        "weights": features.weights,
        "size": str(features.size),
        "pictures": hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
    }
    if file is not None and file.exists():
        return _stored(file, about)
    parts = []
    with progress_of(progress_bar is True, "Image features", unit="pictures") as progress:
        begin(progress)
        for start in range(0, len(images), _AT_ONCE):
            some = np.asarray(images[start : start + _AT_ONCE])
            some = to_unit_range(some) if some.dtype == np.uint8 else some
            parts.append(np.asarray(features(jnp.asarray(some))))
            progress(start + len(some), len(images), {})
    values = np.concatenate(parts)
    if file is not None:
        write_whole(file, save({"values": values}, about))
    return values


def _stored(file: Path, about: dict[str, str]) -> Float[np.ndarray, "n k"]:
    try:
        with safe_open(file, "numpy") as opened:
            before = opened.metadata() or {}
        values = load_file(file)["values"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{file}: no file of image features ({first_line(error)}); delete it, or name another"
            " with --image-features-file"
        ) from error
    if before != about:
        differ = [name for name in about if before.get(name) != about[name]]
        raise InputError(
            f"{file}: made of other pictures or features ({', '.join(differ)} differ); delete it,"
            " or name another with --image-features-file"
        )
    return values
