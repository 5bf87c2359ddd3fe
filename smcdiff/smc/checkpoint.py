"""Checkpoints of a run: its state in a folder, from which it goes on to the same bits.

A folder holds one checkpoint, in a folder named after its step. orbax writes each one beside the
one before, under another name until it is whole; then the old one is renamed and removed. A process
that is killed at any moment leaves a whole checkpoint, or none, and leftovers that the next run
removes. With the arrays goes the identity of the run, words that say what is computed: a folder of
another run is refused. A sum of all bits goes too, since orbax writes none: damaged arrays are
refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, PyTree, UInt32

from smcdiff.base._files import made_folder
from smcdiff.errors import InputError, first_line
from smcdiff.smc.devices import readable

SHARE = 0.05
"""Of the time, at most, goes into writing."""

_UNFINISHED = ".orbax-checkpoint-tmp"
_ENTRY = re.compile(rf"\d+({re.escape(_UNFINISHED)}.*)?")
_REMEDY = "give another folder, or delete this one to start anew"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A folder in which a run keeps its state, and from which the same run goes on.

    Args:
        folder: made where it is missing; it must hold nothing else.
        identity: what the run computes, name -> words or a hash: the problem, the key, the version.
            A run with another identity is refused. The filter adds its own settings, the random
            key and the arrays of the model.
        every: seconds between two writes, at least; more where writing would take over a twentieth
            of the time. 0 writes after every segment.

    Raises:
        InputError: a folder of another run, with other files, or with a damaged checkpoint.
    """

    # Any: what is given is checked by `__post_init__`, whose errors name the remedy.
    folder: str | os.PathLike
    identity: dict[str, str] | Any = dataclasses.field(default_factory=dict)
    every: float | Any = 60.0

    def __post_init__(self):
        """Looks into the folder, before long work starts."""
        pairs = self.identity.items() if isinstance(self.identity, dict) else [(0, 0)]
        if not all(isinstance(part, str) for pair in pairs for part in pair):
            raise InputError("checkpoint: identity must be a dict of strings")
        if isinstance(self.every, bool) or not self.every >= 0.0:
            raise InputError(f"checkpoint: every is {self.every!r}; it must be seconds, at least 0")
        path = self._path()
        if path.exists():
            _check_entries(path)
            if self.identity:  # without one, what makes the run may know it and add it
                _refuse(path, "given", self.identity, _stored_identity(path))

    @contextmanager
    def open(self, run: dict[str, str]) -> Iterator[Writer]:
        """The folder, for one run.

        Args:
            run: what the filter adds to the identity.

        Raises:
            InputError: as in the class.
        """
        path = self._path()
        with made_folder(path, "give another folder for the checkpoint"):
            _check_entries(path)
            stored = _stored_identity(path)
            _refuse(path, "given", self.identity, stored)
            _refuse(path, "run", run, stored)
            _remove_leftovers(path)
            yield Writer(path, {"given": self.identity, "run": run}, self.every)

    def _path(self) -> Path:
        return Path(self.folder).resolve()


class Writer:
    """Writes checkpoints of one run into its folder, and reads the one that is there."""

    def __init__(self, path: Path, identity: dict, every: float):
        import orbax.checkpoint as ocp  # lazily: it takes a second

        self._path, self._identity = path, identity
        self._checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
        self._every, self._pause, self._last = every, every, time.perf_counter()
        self.found = self.newest = _agreed(_newest(path))

    def read(self, arrays: PyTree) -> tuple[PyTree, list[np.ndarray]]:
        """The checkpoint that was found.

        Args:
            arrays: of the same structure, shapes and places.

        Returns:
            The arrays, and what was collected.

        Raises:
            InputError: it cannot be read.
        """
        import orbax.checkpoint as ocp

        leaves, structure = jax.tree.flatten(_without_keys(arrays))
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, leaves)
        try:
            items = ocp.args.Composite(
                arrays=ocp.args.StandardRestore(like),  # pyright: ignore[reportCallIssue]
                collected=ocp.args.StandardRestore(),  # pyright: ignore[reportCallIssue]
            )
            found = self._checkpointer.restore(self._path / str(self.found), args=items)
        except Exception as error:  # whatever tensorstore and orbax raise on damaged files
            raise _damaged(self._path, error) from error
        restored = _with_keys(structure.unflatten(found.arrays), arrays)
        collected = [np.asarray(found.collected[str(i)]) for i in range(len(found.collected) - 1)]
        if _sum_of_bits(found.arrays, collected) != _stored(self._path)["bits"]:
            raise _damaged(self._path, ValueError("its arrays are not those that were written"))
        return restored, collected

    def is_due(self) -> bool:
        """Whether to write now; the same answer in all processes."""
        return bool(_agreed(int(time.perf_counter() - self._last >= self._pause)))

    def write(self, step: int, arrays: PyTree, collected: list[np.ndarray]) -> None:
        """Writes a checkpoint, and removes the one before once it is whole."""
        import orbax.checkpoint as ocp

        start = time.perf_counter()
        named = {str(i): array for i, array in enumerate(collected)}
        leaves = jax.tree.leaves(_without_keys(arrays))
        described = {**self._identity, "bits": _sum_of_bits(leaves, collected)}
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(leaves),  # pyright: ignore
            collected=ocp.args.StandardSave({"number": np.int64(len(named)), **named}),  # pyright: ignore
            identity=ocp.args.JsonSave(described),  # pyright: ignore[reportCallIssue]
        )
        self._checkpointer.save(self._path / str(step), args=items)
        if self.newest >= 0 and jax.process_index() == 0:
            old = self._path / str(self.newest)
            shutil.rmtree(old.rename(f"{old}{_UNFINISHED}"))
        self.newest = step
        self._last = time.perf_counter()
        if self._every:
            self._pause = max(self._every, (self._last - start) * (1 / SHARE - 1))


def digest(tree: PyTree) -> str:
    """A hash of all arrays of a tree: shapes, types and contents."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(_without_keys(tree)):
        array = np.asarray(readable(leaf))
        sha.update(f"{array.shape} {array.dtype} ".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


def _check_entries(path: Path) -> None:
    """Raises ``InputError`` where a path is no folder, or holds other files."""
    if not path.is_dir():
        raise InputError(f"{path}: is a file; give a folder for the checkpoint")
    for entry in sorted(path.iterdir()):
        if not _ENTRY.fullmatch(entry.name):
            raise InputError(
                f"{path}: holds {entry.name}, which is no checkpoint; give an empty folder"
            )


def _remove_leftovers(path: Path) -> None:
    """Removes what a process that was killed has left beside the newest checkpoint."""
    if jax.process_index() == 0:
        newest = str(_newest(path))
        for entry in path.iterdir():
            if entry.name != newest:
                shutil.rmtree(entry)


def _newest(path: Path) -> int:
    """The step of the checkpoint in a folder; -1 where there is none."""
    return max((int(entry.name) for entry in path.iterdir() if entry.name.isdigit()), default=-1)


def _agreed(number: int) -> int:
    """The number of the first process, in all processes."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _stored_identity(path: Path) -> dict[str, dict[str, str]] | None:
    """The identity of the checkpoint in a folder; None where there is none."""
    if _newest(path) < 0:
        return None
    try:
        stored = _stored(path)
        return {part: dict(stored[part]) for part in ("given", "run")}
    except Exception as error:  # no file, no JSON, or another one
        raise _damaged(path, error) from error


def _stored(path: Path) -> dict[str, Any]:
    """What was written beside the arrays of the newest checkpoint."""
    return json.loads((path / str(_newest(path)) / "identity" / "metadata").read_text())


def _sum_of_bits(arrays: list[Any], collected: list[np.ndarray]) -> int:
    """Of all arrays, as whole numbers modulo 2^32, wherever their parts lie."""
    return int(_bits(arrays)) ^ sum(zlib.crc32(a.tobytes()) for a in collected)


@jax.jit
def _bits(arrays: list[Array]) -> UInt32[Array, ""]:
    words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
    whole = [a.astype(jnp.uint8) if a.dtype == bool else a for a in map(jnp.asarray, arrays)]
    parts = [jax.lax.bitcast_convert_type(a, words[a.dtype.itemsize]) for a in whole]
    return sum((jnp.sum(a, dtype=jnp.uint32) for a in parts), jnp.uint32(0))


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: the checkpoint cannot be read ({first_line(error)}); {_REMEDY}")


def _refuse(
    path: Path, part: str, identity: dict[str, str], stored: dict[str, dict[str, str]] | None
) -> None:
    """Raises ``InputError``, naming what differs, where a folder belongs to another run."""
    if stored is None:
        return
    there = stored[part]
    differing = [name for name in {**there, **identity} if there.get(name) != identity.get(name)]
    if differing:
        parts = [
            f"{name} is {there.get(name, 'not given')} there and"
            f" {identity.get(name, 'not given')} here"
            for name in differing
        ]
        raise InputError(f"{path}: the checkpoint is of another run: {'; '.join(parts)}; {_REMEDY}")


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(tree: PyTree) -> PyTree:
    """The tree with the data of its random keys: orbax and NumPy do not know keys."""
    return jax.tree.map(lambda a: jax.random.key_data(a) if _is_key(a) else a, tree)


def _with_keys(tree: PyTree, like: PyTree) -> PyTree:
    """The tree with random keys where ``like`` has them."""
    return jax.tree.map(
        lambda a, b: jax.random.wrap_key_data(a, impl=jax.random.key_impl(b)) if _is_key(b) else a,
        tree,
        like,
    )
