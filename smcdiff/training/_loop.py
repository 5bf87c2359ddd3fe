"""The optimiser's loop that every training shares: moving average, checkpoints, progress.

Every random number is a function of the seed and the step, so that a run that was killed and
resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from smcdiff.base._files import write_whole
from smcdiff.base._progress import Progress, begin, progress_of
from smcdiff.errors import InputError, first_line
from smcdiff.training.config import TrainConfig


class Loss(NamedTuple):
    """What is minimised, and on what.

    Attributes:
        value: ``value(params, batch, key)``, a scalar; jitted.
        batch: ``batch(step)``, the arrays of one step.
    """

    value: Callable[[Any, Any, Array], Float[Array, ""]]
    batch: Callable[[int], Any]


class State(NamedTuple):
    """Everything that a checkpoint holds."""

    params: Any
    ema: Any
    optimiser: Any
    step: jax.Array
    seconds: jax.Array


def _make_step(config: TrainConfig, loss: Loss):
    optimiser = config.optimiser()

    @jax.jit
    def step(state: State, batch, key):
        key = jax.random.fold_in(key, state.step)
        value, gradient = jax.value_and_grad(loss.value)(state.params, batch, key)
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(config.ema, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.ema, params)
        return State(params, ema, optimiser_state, state.step + 1, state.seconds), value

    return step


_FREE = ("checkpoint_every", "sample_every", "description", "licence")
"""Options that may change when a run is resumed, for the weights do not depend on them."""


def _options(config: TrainConfig) -> dict[str, str]:
    fields = dataclasses.asdict(config).items()
    return {name: str(value) for name, value in fields if name not in _FREE}


def _save_checkpoint(file: Path, state: State, config: TrainConfig) -> None:
    """Writes all of the state, and the options that it depends on."""
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    write_whole(file, save(leaves, _options(config)))


def _load_checkpoint(file: Path, state: State, config: TrainConfig) -> State:
    try:
        stored = load_file(file)
        with safe_open(file, "numpy") as opened:
            before = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{file}: the checkpoint cannot be read ({first_line(error)}); delete it, or choose a"
            " new folder"
        ) from error
    leaves, structure = jax.tree.flatten(state)
    fits = len(stored) == len(leaves) and all(
        stored[str(i)].shape == leaf.shape for i, leaf in enumerate(leaves)
    )
    now = _options(config)
    if before:  # an option that there was not when the run began had its default
        before = {field.name: str(field.default) for field in dataclasses.fields(config)} | before
    changed = [f"{n} was {before.get(n)}, is {now[n]}" for n in now if now[n] != before.get(n)]
    if changed or not fits:
        raise InputError(
            f"{file}: a checkpoint of another configuration"
            + (f" ({'; '.join(changed[:3])})" if before and changed else "")
            + "; use the same options or a new folder"
        )
    return jax.tree.unflatten(structure, [jnp.asarray(stored[str(i)]) for i in range(len(leaves))])


def minimise(
    loss: Loss,
    params: Any,
    config: TrainConfig,
    checkpoint: Path,
    *,
    show: Callable[[Any], None] | None = None,
    progress_bar: bool | Progress = True,
) -> State:
    """Runs the optimiser's steps that are left.

    Args:
        loss: what is minimised.
        params: where to start, if there is no checkpoint.
        config: steps, rate, moving average, seed, checkpoints.
        checkpoint: file to resume from and to write to.
        show: called with the averaged parameters every ``config.sample_every`` steps.
        progress_bar: show progress; or a callable ``progress(t, num_steps, info)``, called after
            every step, which may raise to end the run there.

    Returns:
        The last state. Its averaged parameters are rounded to float16, for they are stored so, and
        what is judged afterwards shall be what is stored.

    Raises:
        InputError: a checkpoint of another configuration, or a loss that is not finite.
    """
    state = State(params, params, config.optimiser().init(params), jnp.int32(0), jnp.float32(0))
    if checkpoint.exists():
        state = _load_checkpoint(checkpoint, state, config)
    step, key = _make_step(config, loss), jax.random.key(config.seed)
    start = time.perf_counter() - float(state.seconds)
    with progress_of(progress_bar, "Training") as progress:
        begin(progress)
        for index in range(int(state.step), config.steps):
            state, value = step(state, loss.batch(index), key)
            progress(index + 1, config.steps, {"loss": value})
            if not (index + 1) % config.checkpoint_every or index + 1 == config.steps:
                if not bool(jnp.isfinite(value)):
                    raise InputError(
                        f"train: the loss is {value} at step {index + 1}; lower the learning rate"
                    )
                state = state._replace(seconds=jnp.float32(time.perf_counter() - start))
                _save_checkpoint(checkpoint, state, config)
            if show is not None and not (index + 1) % config.sample_every:
                show(state.ema)
    return state._replace(ema=jax.tree.map(_rounded, state.ema))


def _rounded(leaf: Array) -> Array:
    return leaf.astype(jnp.float16).astype(leaf.dtype)
