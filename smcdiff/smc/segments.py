"""A run as a loop on the host over segments of the compiled loop.

Between two segments the host is free: it reports, collects, writes a checkpoint, and Python hears
Ctrl-C. All of that is ordinary Python: an exception of a hook ends the run. One program serves
segments of all lengths, which change no bit of the result; ``jit`` at the level of the module keeps
it for later runs with equal settings and shapes.

A segment takes about `SECONDS` of work. The first has one step, whose time is not counted since it
may hold the compilation; the lengths that follow come from the time that the one before took.
Where several processes share the work, clocks must not decide: the lengths are fixed there.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import PyTree

from smcdiff.base._callbacks import own_exceptions
from smcdiff.errors import InputError
from smcdiff.smc import _keys as keys
from smcdiff.smc._chains import Chains, leaf_axes
from smcdiff.smc.checkpoint import Checkpoint, Writer, digest
from smcdiff.smc.devices import readable
from smcdiff.smc.feynman_kac import FeynmanKac
from smcdiff.smc.filter import ParticleFilter
from smcdiff.smc.state import FilterResult, FilterState, Record, StepInfo

SECONDS = 0.2
"""Of work in a segment."""

Progress = Callable[[int, int, dict[str, Any]], Any]
Collect = Callable[[FilterState, StepInfo], PyTree]


class Hooks(NamedTuple):
    """What the host does between segments; see `smcdiff.smc.particle_filter`."""

    progress: Progress | None = None
    collect: Collect | None = None
    checkpoint: Checkpoint | None = None


NO_HOOKS = Hooks()


def is_traced(key: keys.ChainKeys, *trees: PyTree) -> bool:
    """Whether anything is being traced, by jit or another transformation, the key itself or not."""
    leaves = jax.tree.leaves((jax.random.key_data(keys.typed(key)), trees))
    return any(isinstance(leaf, Tracer) for leaf in leaves)


def is_made_of_arrays(model: Any) -> bool:
    """Whether a model is a pytree of arrays and numbers, as an argument of ``jit`` must be."""
    kinds = (jax.Array, np.ndarray, np.generic, int, float, complex)
    return all(isinstance(leaf, kinds) for leaf in jax.tree.leaves(model))


@own_exceptions()
def run_in_segments(
    settings: ParticleFilter,
    key: keys.ChainKeys,
    model: FeynmanKac,
    num_steps: int,
    *,
    chain_axes: PyTree = None,
    hooks: Hooks = NO_HOOKS,
) -> FilterResult:
    """The run of `ParticleFilter.run`, with hooks between its segments.

    Args:
        settings: the filter.
        key: random key.
        model: a pytree of arrays.
        num_steps: T.
        chain_axes: as in `ParticleFilter.init`.
        hooks: what to do between segments; without any there is one segment.

    Raises:
        InputError: a model that does not fit, something that is traced, or a checkpoint of another
            run.
    """
    _check_concrete(settings, key, model)
    axes = leaf_axes(model, chain_axes, settings.num_chains)
    with _opened(hooks.checkpoint, settings, key, model, num_steps) as writer:
        between = _Between(settings, hooks, writer, num_steps)
        collects = hooks.collect is not None
        fixed, thresholds = _apart(settings)
        state, record = _begin(fixed, thresholds, axes, key, model, num_steps, collects)
        step, state, record = between.resume(state, record)
        between.serve(step, state, record)
        pace = _Pace(num_steps, hooks)
        # What collect was given stays the caller's: its memory is not used again.
        advance = _advance if collects else _advance_reusing
        while step < num_steps:
            start, step = time.perf_counter(), min(step + pace.length, num_steps)
            state, record = advance(fixed, thresholds, axes, model, state, record, np.int32(step))
            if hooks != NO_HOOKS:
                jax.block_until_ready(state)
                pace.took(time.perf_counter() - start)
            between.serve(step, state, record)
        return between.result(state, record)


def _apart(settings: ParticleFilter) -> tuple[ParticleFilter, Any]:
    """Settings that hash, so that they are structure of a program, and thresholds if an array."""
    if isinstance(settings.ess_threshold, float):
        return settings, None
    return dataclasses.replace(settings, ess_threshold=0.5), settings.ess_threshold


def _together(settings: ParticleFilter, thresholds: Any) -> ParticleFilter:
    if thresholds is None:
        return settings
    return dataclasses.replace(settings, ess_threshold=thresholds)


@partial(jax.jit, static_argnames=("settings", "axes", "num_steps", "last_ancestors"))
def _begin(settings, thresholds, axes, key, model, num_steps, last_ancestors):
    """Step 0."""
    chains = Chains.of(model, axes, settings.num_chains)
    return _together(settings, thresholds).begin(key, chains, num_steps, last_ancestors)


@partial(jax.jit, static_argnames=("settings", "axes"))
def _advance(settings, thresholds, axes, model, state, record, end):
    """The steps after the state's up to ``end``, a traced number: one program for all segments."""
    chains = Chains.of(model, axes, settings.num_chains)
    return _together(settings, thresholds).advance(chains, state, record, state.step, end)


_advance_reusing = jax.jit(
    _advance, static_argnames=("settings", "axes"), donate_argnames=("state", "record")
)


class _Pace:
    """How many steps the next segment has."""

    def __init__(self, num_steps: int, hooks: Hooks):
        self._is_first, self._is_timed = True, False
        if hooks == NO_HOOKS:
            self.length = num_steps
        elif hooks.collect is not None:
            self.length = 1
        elif jax.process_count() > 1:
            self.length = -(-num_steps // 100)
        else:
            self.length, self._is_timed = 1, True

    def took(self, seconds: float) -> None:
        """Learns what the last segment took."""
        if self._is_timed and not self._is_first:
            self.length = max(1, int(self.length * SECONDS / max(seconds, 1e-9)))
        self._is_first = False


class _Between:
    """What happens between the segments of one run."""

    def __init__(
        self, settings: ParticleFilter, hooks: Hooks, writer: Writer | None, num_steps: int
    ):
        self._settings, self._hooks, self._writer = settings, hooks, writer
        self._num_steps = num_steps
        self._collected: list[list[np.ndarray]] = []  # the leaves of each step
        self._structure: Any = None

    def resume(self, state: FilterState, record: Record) -> tuple[int, FilterState, Record]:
        """The step, state and record of the checkpoint, or those of step 0."""
        if self._writer is None or self._writer.found < 0:
            return 0, state, record
        (state, record), stacked = self._writer.read((state, record))
        self._collected = [list(leaves) for leaves in zip(*stacked, strict=True)]
        self._collected = self._collected[:-1]  # collect is asked again for the last step
        return self._writer.found, state, record

    def serve(self, step: int, state: FilterState, record: Record) -> None:
        """Calls the hooks after a segment that ended with ``step``."""
        if self._hooks.collect is not None:
            self._collect(self._hooks.collect, step, state, record)
        writer = self._writer
        if writer is not None and step != writer.found and writer.is_due():
            writer.write(step, (state, record), self._stacked())
        if self._hooks.progress is not None:
            seen = readable(state._replace(particles=None))
            log_evidence = seen.log_evidence + seen.compensation
            shown = {"ess": seen.ess, "num_founders": seen.num_founders}
            shown = {**shown, "log_evidence": log_evidence}
            shown = jax.tree.map(np.asarray, self._settings.public(shown))
            self._report(self._hooks.progress, step, shown, (state, record))

    def _report(
        self, progress: Progress, step: int, shown: dict[str, Any], held: tuple[FilterState, Record]
    ) -> None:
        """Calls ``progress``; where that ends the run, its state is written before."""
        try:
            progress(step, self._num_steps, shown)
        except BaseException:
            writer = self._writer
            # Alone: other processes, which would have to join in writing, know of no exception.
            if writer is not None and step != writer.newest and jax.process_count() == 1:
                writer.write(step, held, self._stacked())
            raise

    def result(self, state: FilterState, record: Record) -> FilterResult:
        """What the run returns, readable in each process."""
        state, record = readable((state, record))
        result = self._settings.result(state, record)
        if self._hooks.collect is None:
            return result
        return result._replace(collected=self._structure.unflatten(self._stacked()))

    def _collect(self, collect: Collect, step: int, state: FilterState, record: Record) -> None:
        state, info = readable((state, record.read(step)))
        seen = collect(self._settings.public(state), self._settings.public(info))
        leaves, self._structure = jax.tree.flatten(seen)
        self._collected.append([np.asarray(leaf) for leaf in leaves])
        before, now = ([a.shape for a in row] for row in (self._collected[0], self._collected[-1]))
        if before != now:
            raise InputError(
                f"particle_filter: collect returned arrays of shapes {now} for step {step} and"
                f" {before} before; they must be the same for all steps"
            )

    def _stacked(self) -> list[np.ndarray]:
        return [np.stack(column) for column in zip(*self._collected, strict=True)]


def _check_concrete(settings: ParticleFilter, key: keys.ChainKeys, model: Any) -> None:
    """Raises ``InputError`` where there is nothing to loop over on the host."""
    if is_traced(key, model, settings.ess_threshold):
        raise InputError(
            "particle_filter: progress, collect and checkpoint are calls between segments of the"
            " run, which jit, vmap and grad cannot make; leave them out there, or call the filter"
            " outside"
        )
    if not is_made_of_arrays(model):
        raise InputError(
            f"particle_filter: {type(model).__name__} is no pytree of arrays, which progress,"
            " collect and checkpoint need; make it a NamedTuple or a subclass of smcdiff.Module"
        )


def _opened(checkpoint: Checkpoint | None, settings, key, model, num_steps) -> Any:
    """A context with the writer of a checkpoint, or None."""
    if checkpoint is None:
        return nullcontext()
    names = [field.name for field in dataclasses.fields(settings)]
    described = {name: _describe(getattr(settings, name)) for name in names}
    kind = type(model)
    return checkpoint.open(
        {
            **described,
            "num_steps": str(num_steps),
            "random key": digest(key),
            "model": f"{kind.__module__}.{kind.__qualname__} {digest(model)}",
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
        }
    )


def _describe(setting: Any) -> str:
    """A setting in words that are the same in another process."""
    if isinstance(setting, Mesh):
        return str(dict(setting.shape))
    if isinstance(setting, (np.ndarray, jax.Array)):
        return digest(setting)
    if callable(setting):
        return getattr(setting, "__qualname__", type(setting).__qualname__)
    return str(setting)
