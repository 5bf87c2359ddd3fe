"""The chains of a run: what is prepared for them before, and what the model says of their ends.

Both are compiled on their own. A chain shares with the others whatever does not depend on its
random key; a catalogue's items differ in the leaves of their reverse models, too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import Array, Float, Key, Shaped

from smcdiff.base.module import Module, static
from smcdiff.errors import NO_DERIVATIVE, InputError, first_line
from smcdiff.moves import Move
from smcdiff.moves._conjugate import Conjugate
from smcdiff.problem import ReverseModel
from smcdiff.proposals import Draw, Proposal
from smcdiff.proposals._ahead import TwistedAhead
from smcdiff.sampler._joint_diffusion import JointDiffusion, Shared
from smcdiff.sampler._staged_diffusion import StagedDiffusion
from smcdiff.sampler._steered_diffusion import SteeredDiffusion
from smcdiff.twists import Evaluation

_HINT = (
    "; denoiser or likelihood have no derivative, as a jax.pure_callback has none: use"
    " proposals.Bootstrap(), or a twist that needs none (`smcdiff train twist`)"
)
Axes = tuple[int | None, ...]
"""For each leaf of a reverse model, 0 where it has a leading axis of chains and None elsewhere."""


class Chains(NamedTuple):
    """The models of several chains.

    Attributes:
        diffusion: a `SteeredDiffusion`, `JointDiffusion` or `StagedDiffusion`; leaves that differ
            between chains have a leading axis of chains.
        axes: 0 for those leaves and None for the others, in the structure of ``diffusion``.
    """

    diffusion: Any
    axes: Any


class _Leaf(Module):
    """A leaf of what was prepared, and whether it has a leading axis of chains."""

    array: Shaped[Array, "..."]
    axis: int | None = static()


def prepare(
    keys: Key[Array, " c"],
    proposal: Proposal,
    model: ReverseModel,
    model_axes: Axes,
    move: Move | None,
    conjugate: tuple[Conjugate, ...] = (),
) -> Chains:
    """What a proposal prepares, for all chains.

    Args:
        keys: one per chain.
        proposal: the sampler.
        model: the reverse model.
        model_axes: of its leaves.
        move: of the unknown parameters, where the model has some.
        conjugate: those of them that are drawn given all else.

    Raises:
        InputError: the proposal fails on this problem, because it needs a derivative that denoiser
            or likelihood do not have, for example.
    """
    try:
        marked = _prepare(keys, proposal, model, model_axes)
        shapes = _evaluated.eval_shape(keys, proposal, model, model_axes)
    except InputError:
        raise
    except Exception as error:  # a user's denoiser, likelihood or proposal may raise anything
        hint = _HINT if any(word in str(error) for word in ("JVP", "differen")) else ""
        raise InputError(
            f"{type(proposal).__name__}: it fails on this problem ({first_line(error)}){hint}"
        ) from error
    _check_shapes(type(proposal).__name__, model.size, *shapes)

    def is_leaf(node: Any) -> bool:
        return isinstance(node, _Leaf)

    prepared = jax.tree.map(lambda leaf: leaf.array, marked, is_leaf=is_leaf)
    proposals = proposal
    if model.before:
        proposals = of_stages(proposal, first_of(model, model_axes))
        diffusion = StagedDiffusion(proposals, model, prepared)
    elif move is None:
        diffusion = SteeredDiffusion(proposal, model, prepared)
    else:
        diffusion = JointDiffusion(proposal, model, prepared, move, conjugate)
    shared = [None for _ in jax.tree.leaves(proposals)]
    own = [leaf.axis for leaf in jax.tree.leaves(marked, is_leaf=is_leaf)]
    axes = [*shared, *model_axes, *own, *(None for _ in jax.tree.leaves(move))]
    return Chains(diffusion, jax.tree.unflatten(jax.tree.structure(diffusion), axes))


@partial(jax.jit, static_argnames="model_axes")
def _prepare(
    keys: Key[Array, " c"], proposal: Proposal, model: ReverseModel, model_axes: Axes
) -> Any:
    """What is prepared, as a tree of `_Leaf`."""
    leaves, structure = jax.tree.flatten(model)

    def one(key: Key[Array, ""], leaves: list[Array]) -> Any:
        own = jax.tree.unflatten(structure, leaves)
        if own.problem.parameters is not None:
            return Shared.of(key, proposal, own)
        if own.before:
            pairs = zip(of_stages(proposal, own), own.stages, strict=True)
            return tuple(each.prepare(key, stage) for each, stage in pairs)
        return proposal.prepare(key, own)

    in_axes = (0, list(model_axes))
    axes = _differing(one, in_axes, keys, leaves)
    prepared = jax.vmap(one, in_axes=in_axes, out_axes=axes)(keys, leaves)
    return jax.tree.map(_Leaf, prepared, axes)


def of_stages(proposal: Proposal, model: ReverseModel) -> tuple[Proposal, ...]:
    """The proposal of each stage: those before the last look ahead."""
    first, x = model.before[0], jnp.zeros(model.before[0].size)

    def log_likelihood(x: Float[Array, " d"]) -> Float[Array, ""]:
        return first.problem.log_likelihood(first.event(first.denoise(x, first.first)))

    jax.eval_shape(log_likelihood, x)  # what fails here is no lack of a derivative
    try:
        jax.eval_shape(jax.grad(log_likelihood), x)
        steers = True
    except NO_DERIVATIVE:
        steers = False
    return (*(TwistedAhead(steers=steers) for _ in model.before), proposal)


def _differing(function: Callable, in_axes: tuple, *args: Any) -> Any:
    """For each output of a function of one chain 0, if it depends on a mapped argument, or None."""
    own = jax.tree.map(
        lambda a, axis: a if axis is None else a[0], args, in_axes, is_leaf=lambda a: a is None
    )
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*own)
    is_mapped = [axis is not None for axis in jax.tree.leaves(in_axes, is_leaf=lambda a: a is None)]
    axes, count = [], len(jaxpr.jaxpr.outvars)
    for index in range(count):
        wanted = [index == other for other in range(count)]
        _, used = partial_eval.dce_jaxpr(jaxpr.jaxpr, wanted)
        depends = any(a and b for a, b in zip(used, is_mapped, strict=True))
        axes.append(0 if depends else None)
    return jax.tree.unflatten(jax.tree.structure(shapes), axes)


@partial(jax.jit, static_argnames="model_axes")
def _evaluated(
    keys: Key[Array, " c"], proposal: Proposal, model: ReverseModel, model_axes: Axes
) -> Any:
    """One evaluation and the two draws: traced for the errors that they raise, and never run."""
    model = first_of(model, model_axes)
    prepared = proposal.prepare(keys[0], model)
    x, t, s = jnp.zeros(model.size), model.level(0), model.level(1)
    evaluation = proposal.evaluate(model, prepared, x, t)
    start = proposal.start(keys[0], model, prepared)
    moved = proposal.propose(keys[0], model, prepared, x, evaluation, t, s)
    return evaluation, start, moved


def _check_shapes(name: str, size: int, evaluation: Any, start: Any, moved: Any) -> None:
    """Raises ``InputError`` unless a proposal returns what its contract says."""
    for method, kind, found in (
        ("evaluate", Evaluation, evaluation), ("start", Draw, start), ("propose", Draw, moved),
    ):  # fmt: skip
        if not isinstance(found, kind):
            raise InputError(f"{name}.{method}: returns no {kind.__name__}")
        expected = {"log_twist": (), "x": (size,), "log_ratio": ()}
        for field, shape in expected.items():
            value = getattr(found, field, None)
            if value is not None and jnp.shape(value) != shape:
                raise InputError(
                    f"{name}.{method}: {field} has shape {jnp.shape(value)} in place of {shape}"
                )


def first_of(model: ReverseModel, model_axes: Axes) -> ReverseModel:
    """The reverse model of the first chain."""
    leaves, structure = jax.tree.flatten(model)
    pairs = zip(leaves, model_axes, strict=True)
    return jax.tree.unflatten(structure, [a if axis is None else a[0] for a, axis in pairs])


@partial(jax.jit, static_argnames=("model_axes", "batch_size"))
def describe(
    x: Float[Array, "c n d"],
    given: Float[Array, "c n p"] | None,
    model: ReverseModel,
    model_axes: Axes,
    batch_size: int | None,
) -> tuple[dict[str, Array], dict[str, Array], Float[Array, "c n"]]:
    """What else the model says of the last particles of all chains.

    Args:
        x: flat events.
        given: what the problem varies with: unknown parameters, unconstrained, or the sites of the
            stages before.
        model: the reverse model.
        model_axes: of its leaves.
        batch_size: particles at once, per chain; None is all of them.

    Returns:
        Unknown parameters and deterministic sites, name -> (C, N, *shape), the log likelihood of
        observed sites, name -> (C, N, *batch shape), and how many prior widths each lies from the
        prior's centre.
    """
    leaves, structure = jax.tree.flatten(model)

    def chain(x: Float[Array, "n d"], given: Array | None, leaves: list[Array]) -> Any:
        problem = jax.tree.unflatten(structure, leaves).problem
        events = x.reshape(len(x), *problem.event_shape)

        def describe(particle: tuple[Float[Array, "*event"], Array | None]) -> Any:
            event, given = particle
            own = problem if given is None else problem.given(given)
            return *own.describe(event), own.prior.widths(event)

        return jax.lax.map(describe, (events, given), batch_size=batch_size or len(x))

    return jax.vmap(chain, in_axes=(0, 0, list(model_axes)))(x, given, leaves)
