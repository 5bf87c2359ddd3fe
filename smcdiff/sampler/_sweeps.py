"""The Markov chains of `ParticleGibbs`: sweeps over path and unknown parameters, in segments.

A sweep draws a new path given the parameters by the conditional particle filter, and new parameters
given the path by steps of a `smcdiff.moves` kernel on p(theta) p(y given x_0, theta), for nothing
else depends on them. What the moves learn of their scale they learn in the warmup, from all chains;
after it nothing changes any more, and the chains are Markov chains.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from smcdiff.base._callbacks import own_exceptions
from smcdiff.base._progress import Progress
from smcdiff.base.module import Module, static
from smcdiff.diffusion import kernels
from smcdiff.moves.base import Experience
from smcdiff.problem import ReverseModel
from smcdiff.proposals._own_path import OwnPath, put_values
from smcdiff.sampler._conditional_diffusion import ConditionalDiffusion
from smcdiff.sampler._joint_diffusion import JointDiffusion
from smcdiff.sampler._path_noise import TARGET, PathNoise
from smcdiff.sampler._steered_diffusion import SteeredDiffusion
from smcdiff.smc import ConditionalFilter, Sweep
from smcdiff.smc.segments import SECONDS

_MOST = 64
"""Sweeps of a segment, at most: what they leave is kept on the device until its end."""
_FIRST_WEIGHT = 10.0
"""What the prior's scale of the parameters counts for, in sweeps of one chain."""

_FIRST_SIZE = 0.1
"""Of the steps that move the noise of the path."""


class State(NamedTuple):
    """All chains after a sweep.

    Attributes:
        path: (C, T + 2, d) blank, x_T, ..., x_0.
        parameters: (C, p) unconstrained; None where the model has no unknown ones.
        learned: what the chains have told of how to move the parameters, an `Experience`, or the
            noise of the path, the log of the size of its steps; None where neither is moved.
    """

    path: Float[Array, "c levels d"]
    parameters: Float[Array, "c p"] | None
    learned: Any


class Row(NamedTuple):
    """What a sweep leaves of each chain; with an axis of sweeps what several do.

    Attributes:
        x: (C, d) the new x_0.
        parameters: (C, p), or None.
        renewed: (C, T + 1) whether x_T, ..., x_0 are new.
        ess: (C, T + 1) of the weights at each level.
        acceptance: (C,) of the moves of the parameters, or of the noise of the path; NaN where
            there are none.
        failed: (C,) whether no weight was positive, or one was not a number.
    """

    x: Float[Array, "*sweeps c d"]
    parameters: Float[Array, "*sweeps c p"] | None
    renewed: Bool[Array, "*sweeps c times"]
    ess: Float[Array, "*sweeps c times"]
    acceptance: Float[Array, "*sweeps c"]
    failed: Bool[Array, "*sweeps c"]


class Plan(Module):
    """What a program of sweeps is compiled for.

    Attributes:
        filter: of one chain.
        axes: of the leaves of the diffusion: 0 where chains differ, else None.
        num_warmup: sweeps in which the moves learn.
        renoises: whether a sweep begins by drawing x_T, ..., x_1 anew by the forward process.
    """

    filter: ConditionalFilter
    axes: tuple[int | None, ...] = static()
    num_warmup: int = static()
    renoises: bool = static(default=False)


def _start(keys: Key[Array, " c"], diffusion: Any, events: Float[Array, "c d"] | None) -> State:
    """The chains before the first sweep.

    Args:
        keys: one per chain.
        diffusion: a `SteeredDiffusion` or a `JointDiffusion`.
        events: x_0 of each chain, from which the path is drawn by the forward process; None leaves
            it to the first sweep, which is then an ordinary particle filter.
    """
    model, chains = diffusion.model, keys.shape[0]
    if events is None:
        path = jnp.zeros((chains, model.num_steps + 2, model.size))
    else:
        path = _noised(keys, model, events)
    if isinstance(diffusion.proposal, OwnPath):
        path = _on_forward_path(keys, diffusion, path)
        return State(path, None, jnp.log(_FIRST_SIZE * jnp.ones(())))
    if not isinstance(diffusion, JointDiffusion):
        return State(path, None, None)
    own = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    parameters = jax.vmap(model.problem.draw_parameters)(own)
    size, move = parameters.shape[1], diffusion.move
    learned = Experience(
        jnp.zeros(size), jnp.eye(size), jnp.log(move.first_size(size)) * jnp.ones(()),
        jnp.asarray(move.target),
    )  # fmt: skip
    return State(path, parameters, learned)


@jax.jit
def _noised(
    keys: Key[Array, " c"], model: ReverseModel, events: Float[Array, "c d"]
) -> Float[Array, "c levels d"]:
    """Paths of the forward process from x_0 of each chain, with a blank in front."""
    return jax.vmap(lambda key, event: _forward_path(key, model, event))(keys, events)


def _forward_path(
    key: Key[Array, ""], model: ReverseModel, event: Float[Array, " d"]
) -> Float[Array, "levels d"]:
    """A path of the forward process from one x_0, with a blank in front."""

    def noisier(x: Array, step: Array) -> tuple[Array, Array]:
        below, level = model.level(step + 1), model.level(step)
        x = kernels.renoise(jax.random.fold_in(key, step + 2), x, below, level)
        return x, x

    _, noisy = jax.lax.scan(noisier, event, jnp.arange(model.num_steps), reverse=True)
    return jnp.concatenate([jnp.zeros_like(event)[None], noisy, event[None]])


@jax.jit
def _on_forward_path(
    keys: Key[Array, " c"], diffusion: SteeredDiffusion, path: Float[Array, "c levels d"]
) -> Float[Array, "c levels d"]:
    """Paths that are those of y where y sees them: far from it they would not be moved soon."""

    def one(key: Key[Array, ""], path: Float[Array, "levels d"]) -> Float[Array, "levels d"]:
        noise = PathNoise(diffusion.model, diffusion.prepared)
        return noise.put(path, noise.draw(jax.random.fold_in(key, 1)))

    return jax.vmap(one)(keys, path)


def _sweep(
    plan: Plan, diffusion: Any, keys: Key[Array, " c"], number: Array, state: State, is_held: Array
) -> tuple[State, Row]:
    """One sweep of all chains."""
    leaves, structure = jax.tree.flatten(diffusion)

    def chain(leaves: list[Array], key: Any, path: Array, parameters: Any) -> tuple[Any, ...]:
        own, key = structure.unflatten(leaves), jax.random.fold_in(key, number)
        return _one(plan, own, key, path, parameters, state.learned, is_held)

    swept, parameters, acceptance = jax.vmap(chain, in_axes=(list(plan.axes), 0, 0, 0))(
        leaves, keys, state.path, state.parameters
    )
    learned = state.learned
    if learned is not None:
        later = _learn(diffusion, learned, number, parameters, acceptance)
        warm = number < plan.num_warmup
        learned = jax.tree.map(lambda a, b: jnp.where(warm, a, b), later, learned)
    # The blank in front is no level.
    renewed, ess = swept.renewed[:, 1:], swept.ess[:, 1:]
    row = Row(swept.path[:, -1], parameters, renewed, ess, acceptance, swept.failed)
    return State(swept.path, parameters, learned), row


def _one(
    plan: Plan, own: Any, key: Key[Array, ""], path: Float[Array, "levels d"],
    parameters: Float[Array, " p"] | None, learned: Any, is_held: Array,
) -> tuple[Sweep, Float[Array, " p"] | None, Float[Array, ""]]:  # fmt: skip
    """One sweep of one chain, its parameters after it, and the acceptance of what was moved."""
    key_path, key_move = jax.random.split(key)
    if plan.renoises:
        path = _forward_path(jax.random.fold_in(key, 1), own.model, path[-1])

    def swept_by(steered: SteeredDiffusion, prepared: Any) -> Sweep:
        held = ConditionalDiffusion(steered.proposal, steered.model, prepared)
        return plan.filter(key_path, held, path, is_held)

    if isinstance(own.proposal, OwnPath):
        noise = PathNoise(own.model, own.prepared)
        values = noise.read(path)
        swept = swept_by(own, put_values(own.prepared, values))
        if plan.renoises:  # which moves it
            return swept, None, jnp.nan * jnp.ones(())
        moved, acceptance = noise.move(key_move, swept.path, jnp.exp(learned))
        return swept._replace(path=moved), None, acceptance
    if not isinstance(own, JointDiffusion):
        return swept_by(own, own.prepared), None, jnp.nan * jnp.ones(())
    assert parameters is not None  # by `_start`
    given = own.given(parameters)
    swept = swept_by(given, given.prepared)

    def log_density(parameters: Array) -> Array:
        given = own.model.given(parameters)
        return given.problem.log_prior() + given.log_likelihood(swept.path[-1])

    scale = learned.scale(own.move, own.shared.frame)
    start = own.redrawn(jax.random.fold_in(key_move, 1), parameters, swept.path[-1])
    moved = own.move(key_move, log_density, start, scale)
    return swept, moved.position, moved.acceptance


def _learn(
    diffusion: Any, learned: Any, number: Array, parameters: Array | None, acceptance: Array
) -> Any:
    """What is known after another sweep: running means of moments, and the size of the steps."""
    if parameters is None:
        gain = 1.0 / jnp.sqrt(number + 1.0)
        return jnp.minimum(learned + gain * (jnp.mean(acceptance) - TARGET), 0.0)
    frame = jax.tree.map(lambda a: a.reshape(-1, a.shape[-1])[0], diffusion.shared.frame)
    size = learned.scale(diffusion.move, frame).log_size
    told = jax.vmap(lambda p, a: Experience.of(p, frame, size, a))(parameters, acceptance)
    told = jax.tree.map(lambda a: jnp.mean(a, axis=0), told)
    # Old sweeps are forgotten: the chains may have been started far away.
    gain = jnp.maximum(1.0 / (number + _FIRST_WEIGHT), 0.02)
    first = learned.first + gain * (told.first - learned.first)
    second = learned.second + gain * (told.second - learned.second)
    return Experience(first, second, told.log_size, told.acceptance)


@partial(jax.jit, static_argnames=("plan", "held_first"), donate_argnames="state")
def _advance(
    plan: Plan, held_first: bool, diffusion: Any, keys: Key[Array, " c"], state: State,
    first: Array, count: Array,
) -> tuple[State, Row]:  # fmt: skip
    """``count`` sweeps from number ``first``, a traced number: one program for all segments."""

    def step(number: Array, state: State) -> tuple[State, Row]:
        return _sweep(plan, diffusion, keys, number, state, (number > 0) | held_first)

    shapes = jax.eval_shape(lambda: step(first, state)[1])
    rows = jax.tree.map(lambda a: jnp.zeros((_MOST, *a.shape), a.dtype), shapes)

    def body(index: Array, held: tuple[State, Row]) -> tuple[State, Row]:
        state, rows = held
        state, row = step(first + index, state)
        put = partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
        return state, jax.tree.map(lambda a, b: put(a, b), rows, row)

    return jax.lax.fori_loop(0, count, body, (state, rows))


@own_exceptions()
def run(
    plan: Plan, diffusion: Any, keys: Key[Array, " c"], start: State | Array | None,
    num_sweeps: int, progress: Progress | None,
) -> tuple[Row, State]:  # fmt: skip
    """Sweeps, in segments between which the host shows how far it is.

    Args:
        plan: what the program is compiled for.
        diffusion: of the chains.
        keys: one per chain.
        start: the state to go on from, or x_0 of each chain, (C, d), or None.
        num_sweeps: of all, warmup included.
        progress: called between segments.

    Returns:
        The rows, (sweeps, C, ...), and the last state, on the host; after a sweep that failed there
        are no more.
    """
    state = start if isinstance(start, State) else _start(keys, diffusion, start)
    state = jax.tree.map(jnp.array, state)  # whose memory is used again
    done, length, found = 0, 1, []
    while done < num_sweeps:
        begun, count = time.perf_counter(), min(length, num_sweeps - done)
        state, rows = _advance(
            plan, start is not None, diffusion, keys, state, np.int32(done), np.int32(count)
        )
        found.append(jax.tree.map(lambda a, n=count: np.asarray(a)[:n], rows))
        done += count
        if done > 1:  # the first may hold the compilation
            length = int(count * SECONDS / max(time.perf_counter() - begun, 1e-9))
            length = min(max(length, 1), _MOST)
        if bool(np.any(found[-1].failed)):
            break
        if progress is not None:
            progress(done, num_sweeps, {"ess": found[-1].ess[-1].min(axis=-1)})
    rows = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    return rows, jax.tree.map(np.asarray, state)
