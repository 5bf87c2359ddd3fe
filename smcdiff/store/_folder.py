"""The folder of a model: ``config.json``, ``model.safetensors`` and ``card.md``.

``docs/model-folder.md`` documents every entry. Every kind of model is written and read here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smcdiff.base._files import made_folder, write_whole
from smcdiff.errors import InputError, first_line

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"
PRIOR = "prior"
"""The kind of a prior, and of folders that name none."""
_REMEDY = "choose another folder"


def write_model(
    folder: Path, arrays: Mapping[str, np.ndarray], card: str, entries: Mapping[str, Any]
) -> Path:
    """Writes a model, all of it or nothing.

    Args:
        folder: where; made if it is not there. Files of other names are left alone.
        arrays: what model.safetensors holds.
        card: text of card.md.
        entries: what config.json holds besides the checksum.

    Returns:
        The folder.

    Raises:
        InputError: a model is there already, or the folder cannot be written.
    """
    from safetensors.numpy import save

    # (`ascontiguousarray` would make vectors of scalars.)
    weights = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    entries = {**entries, "sha256": hashlib.sha256(weights).hexdigest()}
    config = json.dumps(entries, indent=2) + "\n"
    # The configuration last: it is what makes a folder a model.
    files = {WEIGHTS: weights, CARD: _encoded(card), CONFIG: _encoded(config)}
    with made_folder(folder, _REMEDY):
        if (folder / CONFIG).exists():
            raise InputError(f"{folder} holds a model; nothing is overwritten: {_REMEDY}")
        written: list[Path] = []
        try:
            for name, content in files.items():
                written.append(folder / name)
                write_whole(folder / name, content)
        except BaseException:
            for file in written:
                file.unlink(missing_ok=True)
            raise
    return folder


def _encoded(text: str) -> bytes:
    """Text with the bytes of file names in it that are no text."""
    return text.encode(errors="surrogateescape")


def read_config(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The configuration of a model folder.

    Args:
        folder: the folder.
        kind: the kind that it must be; None takes any.

    Raises:
        InputError: no configuration, one that cannot be read, or one of another kind.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text())
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read ({error}); install or train it again") from error
    found = config.get("kind", PRIOR)
    if kind is not None and found != kind:
        raise InputError(
            f"{folder} holds a model of kind '{found}', not '{kind}'; smcdiff.load_prior,"
            " load_classifier, load_conditional, load_twist and load_clip read one kind each"
        )
    return config


def read_arrays(folder: Path, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of model.safetensors, checked against the configuration's checksum.

    Raises:
        InputError: no file, another checksum, or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = folder / WEIGHTS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != config.get("sha256"):
        raise InputError(
            f"{file}: the checksum does not match config.json; the file is truncated or damaged,"
            " so install or train the model again"
        )
    try:
        return load(content)
    except (SafetensorError, TypeError, KeyError) as error:
        raise InputError(f"{file}: not a safetensors file ({error}); train it again") from error


def read_weights(folder: Path, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`read_arrays` of a network of this package, whose weights are finite floats.

    Raises:
        InputError: what `read_arrays` raises, or other values.
    """
    weights = read_arrays(folder, config)
    for name, array in weights.items():
        if array.dtype.kind != "f" or not np.all(np.isfinite(array)):
            raise InputError(
                f"{folder / WEIGHTS}: '{name}' has values that are no finite floats; train again"
            )
    return weights


@contextmanager
def understanding(folder: Path) -> Iterator[None]:
    """Turns what goes wrong while a folder is understood into an ``InputError`` that names it."""
    try:
        yield
    except InputError as error:
        if str(folder) in str(error):
            raise
        raise InputError(
            f"{folder}: config.json and model.safetensors do not fit each other ({error}); install"
            " or train it again"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{folder / CONFIG}: missing or wrong entry ({first_line(error)}); install or train it"
            " again"
        ) from error
