"""The weights of a Hugging Face folder: one safetensors file, or shards with an index.

Names and shapes of all tensors are compared with what the encoder needs before one is read. Then
the files are read one after the other, and of each only what the encoder needs, so that of a model
with a decoder this half is never in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from smcdiff.base._files import check_file, file_digest
from smcdiff.errors import InputError
from smcdiff.text._architecture import Architecture
from smcdiff.text._settings import Settings

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
_AGAIN = "download it again"


def weight_files(folder: Path) -> list[Path]:
    """The one file, or the shards that an index names.

    Raises:
        InputError: neither, or an index that is wrong, or a shard that is missing.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        raise InputError(
            f"{folder}: has neither {WEIGHTS} nor {INDEX}; download the weights in the format"
            " safetensors"
        )
    settings = Settings.read(index)
    places = settings.values.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise settings.wrong("weight_map", "names no files")
    names = list(places.values())
    for name in names:
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise settings.wrong("weight_map", f"names {name!r}, which is no file of the folder")
    files = [folder / name for name in sorted(set(names))]
    for file in files:
        check_file(file, f"all shards that {INDEX} names: {_AGAIN}")
    return files


def weights_digest(files: list[Path]) -> str:
    """sha256 of the one file; of several shards, that of their sha256."""
    digests = [file_digest(file) for file in files]
    return digests[0] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read_weights(files: list[Path], architecture: Architecture) -> dict[str, Array]:
    """What an encoder needs, under its own names and in the precision of the files.

    Args:
        files: of `weight_files`.
        architecture: of the encoder.

    Raises:
        InputError: a file that is no safetensors file; tensors that are missing, too many, of
            another shape, no floats or not finite, or one tensor twice with different values.
    """
    names = _compare(files, architecture)
    weights: dict[str, Array] = {}
    for file in files:
        with _opened(file) as tensors:
            for name, own in names[file].items():
                array = _finite(file, name, tensors.get_tensor(name))
                if own not in weights:
                    weights[own] = jnp.asarray(array)
                elif not np.array_equal(weights[own], array):
                    raise InputError(
                        f"{file}: '{name}' is there under another name, too, with other values;"
                        " give the folder of another encoder"
                    )
    return weights


def _compare(files: list[Path], architecture: Architecture) -> dict[Path, dict[str, str]]:
    """By file, the tensors to read and their own names."""
    shapes, names, extra = architecture.shapes(), {}, []
    for file in files:
        names[file] = {}
        with _opened(file) as tensors:
            for name in tensors.keys():
                own = architecture.own_name(name)
                if own is None:
                    continue
                if own not in shapes:
                    extra.append(name)
                    continue
                found = tuple(tensors.get_slice(name).get_shape())
                if found != shapes[own]:
                    raise InputError(
                        f"{file}: '{name}' has shape {found}, and by config.json {shapes[own]};"
                        " they are not of one model: download the folder again"
                    )
                names[file][name] = own
    there = {own for of_file in names.values() for own in of_file.values()}
    for tensors, problem in ((set(shapes) - there, "missing"), (extra, "unexpected")):
        if tensors:
            listed = ", ".join(f"'{name}'" for name in sorted(tensors)[:5])
            more = ", ..." if len(tensors) > 5 else ""
            raise InputError(
                f"{files[0].parent}: {len(tensors)} tensors are {problem}: {listed}{more};"
                " config.json and weights are not of one model"
            )
    return names


@contextmanager
def _opened(file: Path) -> Iterator:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            yield tensors
    except (SafetensorError, OSError, TypeError) as error:
        raise InputError(f"{file}: not a whole safetensors file ({error}); {_AGAIN}") from error


def _finite(file: Path, name: str, array: np.ndarray) -> np.ndarray:
    """A tensor of finite floats, of at most single precision."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"{file}: '{name}' is of {array.dtype}; give weights that are floats")
    if not np.isfinite(array).all():
        raise InputError(f"{file}: '{name}' has values that are not finite; {_AGAIN}")
    return array.astype(np.float32) if array.dtype.itemsize > 4 else array
