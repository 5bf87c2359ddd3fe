"""Many observations of one model: side by side in compiled batches, and streamed to files.

A catalogue may be larger than memory: a batch of items is read, run and written before the next one
is touched. Every batch has the same number of items, the last one is filled up with copies whose
results are dropped, so that one program serves them all. The chains of all items are chains of one
filter.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from smcdiff._version import __version__
from smcdiff.base._files import claim, made_folder
from smcdiff.base._trees import are_equal
from smcdiff.errors import InputError, SamplingError
from smcdiff.problem import Problem, ReverseModel
from smcdiff.problem._arguments import split
from smcdiff.proposals import Proposal
from smcdiff.results._diagnosis import warn_if_degenerate
from smcdiff.results._netcdf import read_attributes
from smcdiff.results.posterior import Posterior
from smcdiff.sampler._chains import Axes
from smcdiff.sampler._outcome import Outcome, Provenance, to_posterior
from smcdiff.sampler._sampler import Sampler
from smcdiff.smc.checkpoint import digest

_ITEMS = 16
"""Items of a batch where results are written."""
_RECORD = "catalogue.json"
_ARGUMENTS = "catalogue_arguments"
"""Attribute of an item's file: a hash of the arguments that are its own."""


class Catalogue:
    """The items of `SMC.run_batch`; see there."""

    def __init__(
        self,
        sampler: Sampler,
        key: Key[Array, ""],
        batch: dict[str, Any],
        args: tuple,
        kwargs: dict[str, Any],
        shard: tuple[int, int] | None,
        items_per_batch: int | None,
    ):
        """Checks what was given."""
        self.sampler, self.key, self.batch = sampler, key, batch
        arrays, fixed = split(args, kwargs)  # once, so that the items share them
        self.args, self.kwargs = fixed.rebuild(arrays)
        self.size = _size(batch)
        self.items = _part(self.size, shard)
        if items_per_batch is not None and not (
            isinstance(items_per_batch, (int, np.integer)) and items_per_batch >= 1
        ):
            raise InputError(
                f"run_batch: items_per_batch is {items_per_batch!r}; it must be a whole number, at"
                " least 1"
            )
        self.per_batch = items_per_batch

    def posteriors(self) -> list[Posterior]:
        """All posteriors, in memory."""
        found = []
        for items in _batches(self.items, self.per_batch or len(self.items)):
            for result in self.run(items).values():
                if isinstance(result, Exception):
                    raise result
                found.append(result)
        return found

    def write(self, folder: Path) -> list[Path]:
        """One file per item; items whose file is there are passed over.

        Raises:
            InputError: a folder with other files, of another catalogue or of other observations, or
                one that cannot be written; or some items are bad input, and all others are written.
            SamplingError: some items failed; all others are written.
        """
        files = {item: folder / f"item-{item:06d}.nc" for item in self.items}
        failed: dict[int, InputError | SamplingError] = {}
        with made_folder(folder, "choose another output"):
            self._claim(folder)
            left = [item for item in self.items if not self._is_done(item, files[item])]
            for items in _batches(left, self.per_batch or _ITEMS):
                for item, result in self.run(items).items():
                    if isinstance(result, Exception):
                        failed[item] = result
                    else:
                        result.save(files[item])
        if failed:
            first = next(iter(failed.values()))
            raise type(first)(
                f"{len(failed)} of {len(self.items)} items failed ({_listed(failed)}), the others"
                f" are in {folder}; the first: {first}"
            ) from first
        return list(files.values())

    def _is_done(self, item: int, file: Path) -> bool:
        """Whether the file is there; it must be of the item's own arguments."""
        if not file.exists():
            return False
        if read_attributes(file).get(_ARGUMENTS) != digest(self._own(item)):
            raise InputError(
                f"run_batch, item {item}: {file} is of other arguments (has the observation"
                " changed?); choose another output, or remove the file"
            )
        return True

    def _claim(self, folder: Path) -> None:
        """Writes down what the folder's results are of, or compares with what is there."""
        claim(folder / _RECORD, self._identity(), "catalogue")

    def _identity(self) -> dict[str, str]:
        """What all results depend on; what an item alone depends on is in its file."""
        first = self._first_problem()
        return {
            **self.sampler.settings.described(),
            "items": str(self.size),
            "random key": digest(self.key),
            "model": first.fingerprint,
            "prior": digest(first.prior),
            "shared arguments": digest(jax.tree.leaves((self.args, self.kwargs))),
            "smcdiff": __version__,
        }

    def _first_problem(self) -> Problem:
        """Of the first item that can be read; where none of a batch can, it is not the items."""
        errors = []
        for item in self.items[: self.per_batch or _ITEMS]:
            try:
                return self._problem(item)
            except InputError as error:
                errors.append(error)
        raise errors[0]

    def run(self, items: Sequence[int]) -> Mapping[int, Posterior | InputError | SamplingError]:
        """The posteriors of a batch, or why there is none; items may repeat."""
        start, settings = time.perf_counter(), self.sampler.settings
        problems, found = {}, {}
        for item in dict.fromkeys(items):
            try:
                problems[item] = self._problem(item)
            except InputError as error:
                found[item] = error
        if not problems:
            return found
        filler = next(iter(problems))  # a batch keeps its size, and so its program
        items = [item if item in problems else filler for item in items]
        proposal, reason = self.sampler.choose(problems[filler])
        models = {item: self._assemble(item, problems[item], proposal) for item in problems}
        stacked, axes = stack([models[item] for item in items], settings.num_chains)
        keys = jnp.stack([jax.random.fold_in(self.key, item) for item in items])
        outcome = self.sampler.sample(keys, stacked, axes, proposal, len(items))
        seconds = (time.perf_counter() - start) / len(problems)
        made = Provenance(proposal, reason, self.sampler.moves_in_words(problems[filler]), seconds)
        for item in problems:
            own = _item(outcome, items.index(item), settings.num_chains)
            try:
                with _naming(item):
                    posterior = to_posterior(own, models[item], settings, made)
            except SamplingError as error:
                found[item] = error
                continue
            attrs = {**posterior.attrs, _ARGUMENTS: digest(self._own(item))}
            found[item] = dataclasses.replace(posterior, attrs=attrs)
            warn_if_degenerate(posterior)
        return found

    def _problem(self, item: int) -> Problem:
        with _naming(item):
            return self.sampler.read(self.args, self.kwargs | self._own(item))

    def _own(self, item: int) -> dict[str, np.ndarray]:
        """The arguments of an item that are not those of all."""
        return {name: np.asarray(values[item]) for name, values in self.batch.items()}

    def _assemble(self, item: int, problem: Problem, proposal: Proposal) -> ReverseModel:
        with _naming(item):
            return self.sampler.assemble(problem, proposal)


@contextmanager
def _naming(item: int) -> Iterator[None]:
    """Puts the item of a catalogue into the message of an error."""
    try:
        yield
    except (InputError, SamplingError) as error:
        raise type(error)(f"run_batch, item {item}: {error}") from error


def _size(batch: Any) -> int:
    """Number of items."""
    if not isinstance(batch, dict) or not batch:
        raise InputError(
            f"run_batch: the batch is a {type(batch).__name__}; pass the arguments that differ"
            ' by name, for example {"y": ys}'
        )
    shapes = {name: getattr(value, "shape", None) for name, value in batch.items()}
    sizes = {name: np.shape(batch[name])[:1] if s is None else s[:1] for name, s in shapes.items()}
    if len(set(sizes.values())) != 1 or () in sizes.values() or (0,) in sizes.values():
        raise InputError(f"run_batch: leading axes {sizes}; all must be equal and at least 1")
    ((size,),) = set(sizes.values())
    return size


def _part(size: int, shard: tuple[int, int] | None) -> range:
    """The items of one part of a catalogue."""
    if shard is None:
        return range(size)
    whole = isinstance(shard, tuple) and len(shard) == 2
    if not whole or not all(isinstance(n, (int, np.integer)) for n in shard):
        raise InputError(f"run_batch: shard is {shard!r}; give (i, n), for example (0, 4)")
    index, count = shard
    if not 0 <= index < count <= size:
        raise InputError(
            f"run_batch: shard is {index} of {count}, and there are {size} items; i must lie in 0"
            " to n - 1, and n be at most the number of items"
        )
    return range(index, size, count)


def _batches(items: Sequence[int], count: int) -> Iterator[list[int]]:
    """Items in batches of equal size, the last one filled up with its first item."""
    count = min(count, len(items))
    for start in range(0, len(items), max(count, 1)):
        own = list(items[start : start + count])
        yield own + own[:1] * (count - len(own))


def _listed(items: Collection[int]) -> str:
    """The first few of them."""
    few = ", ".join(map(str, list(items)[:10]))
    return few if len(items) <= 10 else f"{few}, ..."


def _item(outcome: Outcome, place: int, num_chains: int) -> Outcome:
    """The chains of one item."""
    own = slice(place * num_chains, (place + 1) * num_chains)
    return jax.tree.map(lambda leaf: leaf[own], outcome)


def stack(models: list[ReverseModel], num_chains: int) -> tuple[ReverseModel, Axes]:
    """Several reverse models as one, with a leading axis of chains where they differ.

    Arguments that the items share are the same arrays.

    Args:
        models: one per item.
        num_chains: chains of each item.

    Returns:
        The model, and the axes of its leaves.

    Raises:
        InputError: models of different structure or shapes.
    """
    models = _sharing(models)
    flat = [jax.tree.flatten(model) for model in models]
    if any(structure != flat[0][1] for _, structure in flat):
        raise InputError(
            "run_batch: the items give models of different structure; observations must have the"
            " same shapes and the same masked pattern of sites"
        )
    columns = list(zip(*(leaves for leaves, _ in flat), strict=True))
    if any(jnp.shape(leaf) != jnp.shape(column[0]) for column in columns for leaf in column):
        raise InputError("run_batch: the items have arrays of different shapes")
    is_shared = [all(leaf is column[0] for leaf in column[1:]) for column in columns]
    leaves = [
        column[0] if shared else jnp.repeat(jnp.stack(column), num_chains, axis=0)
        for column, shared in zip(columns, is_shared, strict=True)
    ]
    axes = tuple(None if shared else 0 for shared in is_shared)
    return jax.tree.unflatten(flat[0][1], leaves), axes


def _sharing(models: list[ReverseModel]) -> list[ReverseModel]:
    """The models with one set of levels, operator and first parameters, where those are equal.

    Each item's reading makes its own. With an axis of items, conditionals on the levels would run
    both branches, and the operator would be decomposed for each item.
    """
    first = models[0]
    stages = zip(*(model.before for model in models), strict=True)
    shared = zip(*(_sharing(list(stage)) for stage in stages), strict=True)
    if first.before:
        pairs = zip(models, shared, strict=True)
        models = [
            dataclasses.replace(
                model,
                before=before,
                problem=dataclasses.replace(
                    model.problem, before=tuple(stage.problem for stage in before)
                ),
            )
            for model, before in pairs
        ]
    if all(are_equal(model.levels, first.levels) for model in models):
        models = [dataclasses.replace(model, levels=first.levels) for model in models]
    for name in ("prior", "recognised", "parameters", "held"):
        shared = {name: getattr(first.problem, name)}
        if all(are_equal(getattr(model.problem, name), shared[name]) for model in models):
            problems = [dataclasses.replace(m.problem, **shared) for m in models]
            pairs = zip(models, problems, strict=True)
            models = [dataclasses.replace(model, problem=problem) for model, problem in pairs]
    return models
