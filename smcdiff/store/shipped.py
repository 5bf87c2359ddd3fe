"""The models that ship with the package, and where a model's folder is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smcdiff.base._files import open_npz
from smcdiff.base._pixels import to_unit_range
from smcdiff.errors import InputError, did_you_mean
from smcdiff.store._folder import CONFIG, PRIOR, read_config


@dataclasses.dataclass(frozen=True)
class PriorInfo:
    """One prior that ships with the package.

    Attributes:
        name: what `smcdiff.load_prior` takes.
        path: its folder.
        event_shape: shape of one event.
        description: one line.
        licence: licence of the data it was trained on.
    """

    name: str
    path: Path
    event_shape: tuple[int, ...]
    description: str
    licence: str


def shipped_folder() -> Path:
    """Where the shipped models lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def list_priors() -> list[PriorInfo]:
    """The priors that ship with the package."""
    return [
        PriorInfo(
            folder.name,
            folder,
            tuple(config["event_shape"]),
            config.get("description", ""),
            config.get("licence", ""),
        )
        for folder, config in _shipped(PRIOR)
    ]


def _shipped(kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of what ships of a kind, and their configurations."""
    for file in sorted(shipped_folder().glob(f"*/{CONFIG}")):
        config = read_config(file.parent)
        if config.get("kind", PRIOR) == kind:
            yield file.parent, config


def model_folder(name_or_path: str | os.PathLike, kind: str = PRIOR) -> Path:
    """The folder of a model, given by its path or by the name of one that ships.

    Args:
        name_or_path: of the model.
        kind: of model, as in config.json; the caller checks that of a folder.

    Raises:
        InputError: there is none; the message names those that ship.
    """
    given, name = Path(name_or_path), str(name_or_path)
    try:
        for folder in (given, shipped_folder() / name):
            if (folder / CONFIG).is_file():
                return folder
        is_folder, is_file = given.is_dir() and bool(name), given.is_file()
    except OSError as error:  # no right to look, or a name too long
        raise InputError(
            f"{given}: cannot be read ({error.strerror}); give the folder of a {kind}, or a name"
        ) from error
    if is_folder:
        raise InputError(f"{given}: the folder has no {CONFIG}, so it is no trained {kind}")
    if is_file:
        raise InputError(f"{given} is a file; give the folder of a {kind}, or a name")
    hint = did_you_mean(name, [folder.name for folder, _ in _shipped(kind)])
    raise InputError(f"no {kind} named '{name}'; {hint}, or give a {kind}'s folder")


def load_examples(name_or_path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Real events that a prior's training has not seen.

    Args:
        name_or_path: as for `smcdiff.load_prior`.

    Returns:
        Events (n, *event_shape) float32 in the prior's units, and their labels (n,).

    Raises:
        InputError: unknown name, or a prior that comes without examples, or with damaged ones.
    """
    file = model_folder(name_or_path) / "examples.npz"
    if not file.is_file():
        raise InputError(f"{file}: this prior comes without examples; give an image of your own")
    with open_npz(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    has_labels = labels.dtype.kind in "iu" and labels.shape == images.shape[:1]
    if images.dtype != np.uint8 or not has_labels:
        raise InputError(
            f"{file}: needs images of uint8 and a whole number for each in labels; write it again"
        )
    return to_unit_range(images), labels
