"""The folder that a command writes: claimed before long work, never overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smcdiff.base.files import made_folder
from smcdiff.errors import InputError

_REMEDY = "choose another --output"


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
    with made_folder(path, _REMEDY) as folder:
        if any(folder.iterdir()):
            raise InputError(f"{path} exists; nothing is overwritten: {_REMEDY}")
        yield folder
