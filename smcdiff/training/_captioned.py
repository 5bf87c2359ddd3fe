"""Pictures with captions: shapes without end, or files of pictures with their captions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smcdiff import shapes
from smcdiff.base._files import check_file
from smcdiff.base._pixels import to_unit_range
from smcdiff.errors import InputError, first_line
from smcdiff.training._data import batch_indices, check_count, load_images
from smcdiff.training.text_config import CaptionedTrainConfig

SHAPES = "shapes"
"""The name of the pictures that are drawn while one trains."""
_CAPTIONS = "captions.json"
_STREAM = 0x7E47
"""Separates the keys of what is drawn from those of the loop."""


@runtime_checkable
class Captioned(Protocol):
    """Captioned pictures to learn from.

    Attributes:
        name: for messages.
        shape: of a picture, (h, w, c).
        grammar: of the captions, where it is a closed one.
        description: for the card.
        licence: of the pictures, for the card; empty where it is not known.
    """

    name: str
    shape: tuple[int, ...]
    grammar: str | None
    description: str
    licence: str

    def every_caption(self) -> Sequence[str]:
        """All that may be asked for, those that are held out among them."""
        ...

    def trained_captions(self) -> Sequence[str]:
        """Those that are learned from."""
        ...

    def changed(self, caption: str) -> Sequence[str]:
        """All that differ from one by a word, where captions are of a grammar; else none."""
        ...

    def batch(self, step: int, config: CaptionedTrainConfig) -> tuple[Array, Sequence[str]]:
        """Pictures in [-1, 1] and captions of one step."""
        ...

    def some(self, count: int) -> np.ndarray:
        """Pictures to take the statistics of, uint8 or in [-1, 1]."""
        ...

    def held_out(self, count: int) -> tuple[Array, Sequence[str]]:
        """At most so many pictures in [-1, 1] whose captions are not learned from."""
        ...


class DrawnShapes:
    """Captioned shapes, drawn anew at every step, of the grammar's captions for training."""

    def __init__(self, size: int):
        """Pixels a side.

        Raises:
            InputError: a size that is not drawn.
        """
        self.name, self.shape = SHAPES, (size, size, 3)
        self.grammar: str | None = SHAPES
        self.licence = "Apache-2.0, that of this package, which draws them"
        self.description = (
            f"captioned shapes of {size} x {size} pixels (smcdiff.shapes), drawn anew at every"
            f" step, of {len(self.trained_captions()):,} captions; held out are"
            f" {len(shapes.captions(shapes.Split.HELD_OUT))} captions, and"
            f" {len(shapes.captions(shapes.Split.UNSEEN_COMBINATION))} of combinations that no"
            " caption of the training has"
        )
        self._draw(jax.random.key(0), 1, shapes.Split.TRAIN)

    def every_caption(self) -> tuple[str, ...]:
        """The whole grammar."""
        return shapes.captions()

    def trained_captions(self) -> tuple[str, ...]:
        """The part for training."""
        return shapes.captions(shapes.Split.TRAIN)

    def changed(self, caption: str) -> tuple[str, ...]:
        """Of all parts of the grammar."""
        return shapes.one_word_changes(caption)

    def batch(self, step: int, config: CaptionedTrainConfig) -> tuple[Array, tuple[str, ...]]:
        """A function of the seed and the step."""
        key = jax.random.fold_in(jax.random.key(config.seed), _STREAM)
        return self._draw(jax.random.fold_in(key, step), config.batch_size, shapes.Split.TRAIN)

    def some(self, count: int) -> Float[np.ndarray, "n h w c"]:
        """Of captions for training."""
        return np.asarray(self._draw(jax.random.key(1), count, shapes.Split.TRAIN)[0])

    def held_out(self, count: int) -> tuple[Array, tuple[str, ...]]:
        """Of the captions that are held out."""
        return self._draw(jax.random.key(2), count, shapes.Split.HELD_OUT)

    def _draw(self, key: Array, count: int, part: shapes.Split) -> tuple[Array, tuple[str, ...]]:
        key_captions, key_pictures = jax.random.split(key)
        captions = shapes.random_captions(key_captions, count, part)
        return shapes.render_batch(captions, key_pictures, self.shape[0]), captions


class CaptionedFiles:
    """Pictures in a file with captions beside them; some captions are held out with theirs."""

    def __init__(self, path: Path, config: CaptionedTrainConfig):
        """Reads them.

        Args:
            path: a folder with captions.json and one .npz or .npy of pictures, or such a file
                with captions.json beside it; see `load_images`. captions.json is a list, in the
                pictures' order, of texts, or of objects that have one at ``config.caption_key``.
            config: size, key, batch size and the share that is held out.

        Raises:
            InputError: no captions, none for some picture, or pictures that cannot be used.
        """
        file = _picture_file(path)
        images = averaged(file, load_images(file), config.size)
        self.captions = read_captions(file.parent / _CAPTIONS, config.caption_key, len(images))
        self.images, self.name, self.shape = images, str(path), images.shape[1:]
        self.grammar: str | None = None
        self.licence = ""
        is_out = np.array([_share(caption) < config.held_out for caption in self.captions])
        self.used, self.out = np.flatnonzero(~is_out), np.flatnonzero(is_out)
        if not len(self.out):  # few captions: the one that the order of their hashes puts first
            first = min(self.captions, key=_share)
            is_out = np.array([caption == first for caption in self.captions])
            self.used, self.out = np.flatnonzero(~is_out), np.flatnonzero(is_out)
        check_count(path, len(images), config.batch_size)
        if len(self.used) < config.batch_size:
            raise InputError(
                f"train: {len(self.used)} pictures with captions that are not held out do not fill"
                f" a batch of {config.batch_size}; use a smaller --batch-size"
            )
        self.description = (
            f"{len(images)} images of shape {self.shape} with {len(set(self.captions))} captions;"
            f" held out are the {len(self.out)} images of"
            f" {len({self.captions[i] for i in self.out})} of them"
        )

    def every_caption(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(self.captions))

    def trained_captions(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(self.captions[i] for i in self.used))

    def changed(self, caption: str) -> tuple[str, ...]:
        """None."""
        return ()

    def batch(self, step: int, config: CaptionedTrainConfig) -> tuple[Array, list[str]]:
        """A new permutation each epoch."""
        return self._of(self.chosen(step, config))

    def chosen(self, step: int, config: CaptionedTrainConfig) -> Int[np.ndarray, " b"]:
        """Places of a batch's pictures among all."""
        return self.used[batch_indices(step, config.batch_size, len(self.used), config.seed)]

    def some(self, count: int) -> np.ndarray:
        """At random, for files are often sorted."""
        return self.images[np.random.default_rng(0).permutation(len(self.images))[:count]]

    def held_out(self, count: int) -> tuple[Array, list[str]]:
        """At random."""
        return self._of(np.random.default_rng(0).permutation(self.out)[:count])

    def _of(self, chosen: np.ndarray) -> tuple[Array, list[str]]:
        images = jnp.asarray(to_unit_range(np.asarray(self.images[chosen])))
        return images, [self.captions[i] for i in chosen]


def captioned(data: str | Path, config: CaptionedTrainConfig) -> Captioned:
    """The captioned pictures that ``data`` names: "shapes", or a folder or file.

    Raises:
        InputError: data that cannot be used.
    """
    if str(data) == SHAPES:
        config.refuse("shapes, whose grammar says what is held out", "held_out")
        return DrawnShapes(32 if config.size is None else config.size)
    return CaptionedFiles(Path(data), config)


def _picture_file(path: Path) -> Path:
    if not path.is_dir():
        check_file(path, "'shapes', or captioned pictures")
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in (".npz", ".npy"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise InputError(
            f"{path}: there must be one .npz or .npy of pictures beside {_CAPTIONS}, found {names};"
            " give the file itself"
        )
    return files[0]


def read_captions(file: Path, key: str, count: int) -> list[str]:
    """The captions of pictures, in their order.

    Args:
        file: a JSON list of texts, or of objects.
        key: of the objects.
        count: of the pictures.

    Raises:
        InputError: no such file, or not a caption for each picture.
    """
    captions = listed_captions(file, key)
    if len(captions) != count:
        raise InputError(
            f"{file}: holds {len(captions)} entries; it must be a list with one for each of {count}"
        )
    if len(set(captions)) < 2:
        raise InputError(f"{file}: all captions are the same; there is nothing to learn of them")
    return captions


def listed_captions(file: Path, key: str) -> list[str]:
    """The captions of a file, in their order.

    Args:
        file: a JSON list of texts, or of objects.
        key: of the objects.

    Raises:
        InputError: no such file, or an entry without a text.
    """
    check_file(file, f"{_CAPTIONS}, a list with a caption for each picture")
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read ({first_line(error)})") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{file}: holds no list of captions; it must be one, of texts or objects")
    return [_text_of(file, entry, key) for entry in entries]


def _text_of(file: Path, entry: Any, key: str) -> str:
    caption = entry.get(key) if isinstance(entry, dict) else entry
    if isinstance(caption, str) and caption.strip():
        return caption
    keys = sorted(entry) if isinstance(entry, dict) else "a text is wanted"
    raise InputError(
        f"{file}: an entry has no text at '{key}' ({keys}); name the right --caption-key"
    )


def averaged(file: Path, images: np.ndarray, size: int | None) -> np.ndarray:
    """Pictures of ``size`` pixels a side, as means over blocks of larger ones.

    Raises:
        InputError: a size that does not divide theirs.
    """
    if size is None:
        return images
    count, height, width, channels = images.shape
    factor = height // size if height % size == 0 else 0
    if factor < 1 or width != height:
        raise InputError(
            f"{file}: images of {height} x {width} are not whole blocks of {size} x {size}; give"
            " another --size"
        )
    blocks = images.reshape(count, size, factor, size, factor, channels)
    return np.round(blocks.mean(axis=(2, 4), dtype=np.float32)).astype(np.uint8)


def _share(caption: str) -> float:
    """Where in [0, 1) a caption's hash lies: the same for ever and everywhere."""
    return int.from_bytes(hashlib.sha256(caption.encode()).digest()[:8], "big") / 2**64
