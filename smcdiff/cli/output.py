"""What a command leaves: notes, and a folder, claimed before long work and never overwritten."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smcdiff.base._files import made_folder
from smcdiff.errors import InputError

REMEDY = "choose another --output"


def note(message: str) -> None:
    """Says on standard error what a user should know, in one line."""
    print(f"smcdiff: note: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Makes a folder at once, and takes it away again where its files cannot all be written.

    Args:
        path: the folder; it must not exist, or be empty.

    Yields:
        The folder.

    Raises:
        InputError: something is there already, or the folder cannot be made or written.
    """
    with made_folder(path, REMEDY) as folder:
        if any(folder.iterdir()):
            raise InputError(f"{path} exists; nothing is overwritten: {REMEDY}")
        try:
            yield folder
        except (InputError, OSError, KeyboardInterrupt):
            for file in folder.iterdir():
                file.unlink()
            raise
