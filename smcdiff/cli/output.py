"""The folder that a command writes: claimed before long work, never overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smcdiff.errors import InputError


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Makes a folder at once, and takes it away again where the command fails and left it empty.

    Args:
        path: the folder; it must not exist, or be empty.

    Yields:
        The folder.

    Raises:
        InputError: something is there already, or the folder cannot be made or written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists; nothing is overwritten: choose another --output")
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose another --output"
        ) from error
    try:
        yield path
    finally:
        if made and not any(path.iterdir()):
            path.rmdir()
