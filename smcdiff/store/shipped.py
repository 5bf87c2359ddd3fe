"""The models that ship with the package, and where a model's folder is."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from smcdiff.base._files import open_npz
from smcdiff.base._pixels import to_unit_range
from smcdiff.errors import InputError, did_you_mean
from smcdiff.store._folder import CONFIG, read_config


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
    infos = []
    for file in sorted(shipped_folder().glob(f"*/{CONFIG}")):
        config = read_config(file.parent)
        if config.get("kind", "prior") != "prior":
            continue
        infos.append(
            PriorInfo(
                file.parent.name,
                file.parent,
                tuple(config["event_shape"]),
                config.get("description", ""),
                config.get("licence", ""),
            )
        )
    return infos


def prior_folder(name_or_path: str | os.PathLike) -> Path:
    """The folder of a prior, given by its path or by a name of `list_priors`.

    Raises:
        InputError: there is none; the message names those that there are.
    """
    given, name = Path(name_or_path), str(name_or_path)
    try:
        for folder in (given, shipped_folder() / name):
            if (folder / CONFIG).is_file():
                return folder
        is_folder, is_file = given.is_dir() and bool(name), given.is_file()
    except OSError as error:  # no right to look, or a name too long
        raise InputError(
            f"{given}: cannot be read ({error.strerror}); give the folder of a prior, or a name"
        ) from error
    if is_folder:
        raise InputError(f"{given}: the folder has no {CONFIG}, so it is no trained prior")
    if is_file:
        raise InputError(f"{given} is a file; give the folder of a prior, or a name")
    hint = did_you_mean(name, [info.name for info in list_priors()])
    raise InputError(f"no prior named '{name}'; {hint}, or give a prior's folder")


def load_examples(name_or_path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Real events that a prior's training has not seen.

    Args:
        name_or_path: as for `smcdiff.load_prior`.

    Returns:
        Events (n, *event_shape) float32 in the prior's units, and their labels (n,).

    Raises:
        InputError: unknown name, or a prior that comes without examples, or with damaged ones.
    """
    file = prior_folder(name_or_path) / "examples.npz"
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
