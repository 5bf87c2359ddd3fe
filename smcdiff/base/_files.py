"""Files and folders: read with errors that name them, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from smcdiff.errors import InputError, first_line

PART = ".part-"
"""How the names of unfinished files begin."""

_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError, OverflowError, SyntaxError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy raises on files that are empty, truncated, of another type or damaged."""


def check_file(path: Path, expected: str) -> None:
    """Raises ``InputError`` unless there is a file; ``expected`` says which one is wanted."""
    try:
        if path.is_file():
            return
        found = "is a folder" if path.is_dir() else "no such file"
    except (OSError, ValueError) as error:  # a name too long, or with a zero byte
        found = first_line(error)
    raise InputError(f"{path}: {found}; give {expected}")


def file_digest(file: Path) -> str:
    """sha256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error


def _unreadable(path: Path, error: Exception, writer: str) -> InputError:
    # NumPy takes every file that it does not know for a pickle, and advises to load it unsafely.
    reason = "it holds no plain arrays" if "pickle" in str(error) else first_line(error)
    return InputError(f"{path}: cannot be read ({reason}); write it again with {writer}")


def read_npy(path: Path, mapped: bool = False) -> np.ndarray:
    """The array of an .npy file.

    Args:
        path: the file.
        mapped: map it into memory instead of reading it.

    Raises:
        InputError: no file, or not a whole .npy file.
    """
    check_file(path, "an .npy file")
    try:
        if mapped:
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except _UNREADABLE as error:
        raise _unreadable(path, error, "numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an .npz archive by another name; write it with numpy.save")
    return array


class Archive:
    """The arrays of an .npz file.

    Attributes:
        names: their names.
    """

    def __init__(self, archive: np.lib.npyio.NpzFile):
        self._archive = archive
        self.names = list(archive.files)

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads an array; raises ``ValueError`` where the file holds something else there."""
        value = self._archive[name]
        if not isinstance(value, np.ndarray):
            raise ValueError(f"'{name}' is no array")
        return value


@contextmanager
def open_npz(path: Path) -> Iterator[Archive]:
    """The arrays of an .npz file, which are read when they are asked for, inside the context.

    Raises:
        InputError: no file, or not a whole .npz file.
    """
    check_file(path, "an .npz file")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array")
            yield Archive(archive)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise _unreadable(path, error, "numpy.savez") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its name when the context ends well."""
    temporary = path.with_name(f"{PART}{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes a file of which everything is in memory; an unfinished one never takes the name.

    Args:
        path: file to write, or to replace.
        content: all of it.

    Raises:
        InputError: it cannot be written, because the disk is full for example; nothing is left.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        size = max(memoryview(content).nbytes / 1e6, 0.1)
        raise InputError(
            f"{path}: cannot be written ({error.strerror or first_line(error)}); choose a folder"
            f" that can be written and has {size:.1f} MB to spare"
        ) from error


@contextmanager
def made_folder(path: Path, remedy: str) -> Iterator[Path]:
    """Makes a folder at once; those that it had to make go again where they are left empty.

    Args:
        path: the folder; it may exist.
        remedy: what the error tells the user to do.

    Yields:
        The folder.

    Raises:
        InputError: the folder cannot be made or written.
    """
    missing: list[Path] = []
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except (OSError, ValueError) as error:
        _remove_empty(missing)
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{path}: cannot be written ({reason}); {remedy}") from error
    try:
        yield path
    finally:
        _remove_empty(missing)


def claim(record: Path, identity: dict[str, str], what: str) -> None:
    """Writes down what the results in a folder are of, or compares with what is there.

    Args:
        record: file of that, in the folder.
        identity: what all results depend on.
        what: they are of, in the message.

    Raises:
        InputError: the folder's results are of something else, or it holds other files.
    """
    folder = record.parent
    if record.exists():
        there = json.loads(record.read_text())
        other = [name for name in identity if there.get(name) != identity[name]]
        if other:
            raise InputError(
                f"{folder}: its results are of another {what} ({', '.join(other)} differ); choose"
                " another output"
            )
        return
    if any(folder.iterdir()):
        raise InputError(f"{folder}: holds other files; choose another output")
    with replacing(record) as temporary:
        temporary.write_text(json.dumps(identity, indent=2) + "\n")


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
