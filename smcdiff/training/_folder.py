"""The folder of a training run: a checkpoint on the way, a model at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smcdiff.base._files import PART, made_folder
from smcdiff.errors import InputError
from smcdiff.store._captions import CAPTIONS
from smcdiff.store._folder import CONFIG

CHECKPOINT = "checkpoint.safetensors"
SAMPLES = "samples.png"
_REMEDY = "choose another --output"


@contextmanager
def training_folder(path: str | Path) -> Iterator[Path]:
    """Makes or continues the folder of a training run.

    Args:
        path: a folder that does not exist, is empty, or holds a checkpoint of an earlier run.

    Yields:
        The folder. Where the run ends without a checkpoint or a model nothing is left of it; where
        it ends well, the checkpoint goes.

    Raises:
        InputError: a finished model or other files are there, or it cannot be written.
    """
    path = Path(path)
    with made_folder(path, _REMEDY) as folder:
        names = {file.name for file in folder.iterdir()}
        if CONFIG in names:
            raise InputError(f"{path} holds a finished model; nothing is overwritten: {_REMEDY}")
        # A run that was killed before its first checkpoint leaves its pictures and unnamed parts.
        others = {name for name in names if not name.startswith(PART)} - {SAMPLES, CAPTIONS}
        if others and CHECKPOINT not in names:
            raise InputError(f"{path} holds other files; nothing is overwritten: {_REMEDY}")
        try:
            yield folder
            (folder / CHECKPOINT).unlink()
        except BaseException:
            if not (folder / CHECKPOINT).exists():
                (folder / SAMPLES).unlink(missing_ok=True)
                (folder / CAPTIONS).unlink(missing_ok=True)
            raise
