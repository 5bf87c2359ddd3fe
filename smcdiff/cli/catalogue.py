"""``smcdiff solve --catalogue``: many observations from one array, larger than memory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import typer
from jaxtyping import PRNGKeyArray

from smcdiff.base._files import made_folder
from smcdiff.base._progress import Progress, ProgressBar, begin
from smcdiff.cli.images import note_alpha, read_array
from smcdiff.cli.interrupt import interruptible
from smcdiff.cli.observation import Source
from smcdiff.cli.output import REMEDY
from smcdiff.cli.problems import Measurement
from smcdiff.cli.sampler import Sampler
from smcdiff.errors import InputError

_PATTERN = "item-*.nc"
_PAUSE = 1.0
"""Seconds between two looks into the folder, which may hold 100,000 files."""


class Observations:
    """The observation of each item of a file, read and converted when it is asked for.

    Args:
        measured: how the observations arise.
        source: its image is an .npy array of observations, one after another along its first axis.

    Attributes:
        shape: (items, *shape of an observation).
        dtype: float32.
        ndim: number of axes.

    Raises:
        InputError: no array of items, or an item that cannot be used.
    """

    def __init__(self, measured: Measurement, source: Source):
        """See the class."""
        file = source.image
        assert file is not None
        self._items = read_array(file, mapped=True)
        if self._items.ndim < 2 or not len(self._items):
            raise InputError(
                f"{file}: an array of shape {self._items.shape}; a catalogue has a first axis of"
                f" items, each as a file of its own would be: {measured.file_shape}"
            )
        self._measured, self._source, self._file = measured, source, file
        self.shape = (len(self._items), *measured.operator.out_shape)
        self.dtype, self.ndim = np.dtype(np.float32), len(self.shape)

    def check(self) -> None:
        """Reads every item; raises ``InputError`` at the first that cannot be used."""
        for index in range(len(self)):
            self._observe(index)
        if self._measured.is_image:
            note_alpha(str(self._file), self._items.shape[1:], self._measured.file_shape)

    def __len__(self) -> int:
        """Number of items."""
        return len(self._items)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The observation of an item, or of those that a slice or an array of numbers names."""
        items = range(len(self))
        numbers = [items[i] for i in index] if isinstance(index, Iterable) else items[index]
        if isinstance(numbers, int):
            return self._observe(numbers)
        found = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for place, number in enumerate(numbers):
            found[place] = self._observe(number)
        return found

    def _observe(self, index: int) -> np.ndarray:
        name = f"{self._file}, item {index}"
        values, source = self._items[index], self._source
        return self._measured.observe(name, values, source.value_range, source.noise)


def read_shard(text: str) -> tuple[int, int]:
    """The share of a catalogue that ``I/N`` names.

    Raises:
        InputError: not two whole numbers with 0 <= I < N.
    """
    parts = text.split("/")
    if len(parts) == 2 and all(part.isascii() and part.isdecimal() for part in parts):
        index, count = map(int, parts)
        if index < count:
            return index, count
    raise InputError(f"--shard {text}: give I/N with I from 0 to N - 1, for example 0/8")


def solve_catalogue(
    sampler: Sampler,
    key: PRNGKeyArray,
    arguments: tuple,
    items: Observations,
    output: Path,
    shard: tuple[int, int] | None,
    items_per_batch: int | None,
) -> None:
    """Writes a posterior for each item of a catalogue, or of a share of it.

    Args:
        sampler: how.
        key: random key of all items.
        arguments: what the items share: prior, operator and noise.
        items: the observations.
        output: folder of the results; finished ones are kept.
        shard: which share, of how many; None is all items.
        items_per_batch: items in one compiled call; None leaves it to the sampler.

    Raises:
        InputError: items or options that cannot be used.
    """
    items.check()
    options: dict[str, Any] = {"output": output}
    options |= {} if shard is None else {"shard": shard}
    options |= {} if items_per_batch is None else {"items_per_batch": items_per_batch}

    def run(progress):
        smc = sampler.smc(_ByItems(progress, output, len(items)))
        smc.run_batch(key, {"y": items}, *arguments, **options)

    with made_folder(output, REMEDY):
        interruptible(run, ProgressBar("Catalogue"))
        count = _count_results(output)
    typer.echo(f"{count} of {len(items)} posteriors are in {output}")


def _count_results(folder: Path) -> int:
    """How many items have their file."""
    return sum(1 for _ in folder.glob(_PATTERN))


class _ByItems:
    """A callable for the runs of all batches, which shows how many items have their file.

    Args:
        progress: what shows it; what it raises ends the runs.
        folder: of the results.
        total: items of the catalogue.
    """

    def __init__(self, progress: Progress, folder: Path, total: int):
        """See the class."""
        self._progress, self._folder, self._total = progress, folder, total
        self._looked, self._done = -math.inf, 0

    def begin(self) -> None:
        """As that of ``progress``."""
        begin(self._progress)

    def __call__(self, t: int, num_steps: int, info: dict[str, Any]) -> None:
        """Shows the number of files."""
        if time.monotonic() - self._looked >= _PAUSE:
            self._looked, self._done = time.monotonic(), _count_results(self._folder)
        self._progress(self._done, self._total, {})
