"""The chains of a filter: functions of one chain on all of them, and their models.

Arrays have an axis of chains in front, also for one chain, but not inside the steps of the filter
where there is one chain only: it is taken out before a loop and put back after it. XLA would
otherwise pay for that axis in cheap models, up to twice the time: a reshape between a particle and
its weight makes it compute the particle once more for each of their uses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from smcdiff.errors import InputError
from smcdiff.smc.feynman_kac import FeynmanKac

_SHARED = object()
Axes = tuple[int | None, ...]
"""For each leaf of a model: 0 for a leading axis of chains, None where they share the leaf."""


def drop_axis(tree: PyTree, axis: int = 0) -> PyTree:
    """The tree without its axis of one chain."""
    return jax.tree.map(lambda a: jnp.squeeze(a, axis), tree)


def add_axis(tree: PyTree, axis: int = 0) -> PyTree:
    """The tree with an axis of one chain."""
    return jax.tree.map(lambda a: jnp.expand_dims(a, axis), tree)


def leaf_axes(model: Any, chain_axes: PyTree, num_chains: int | None) -> Axes:
    """``chain_axes`` for each leaf of a model.

    Args:
        model: a pytree; anything else is a leaf of its own.
        chain_axes: a tree prefix of the model with 0 for what differs between chains, None for what
            they share; as ``in_axes`` of ``jax.vmap``.
        num_chains: C, or None.

    Raises:
        InputError: no prefix of the model, other values, or a leading axis that is not C.
    """

    def is_none(node: Any) -> bool:
        return node is None

    leaves = jax.tree.leaves(model)
    if chain_axes is None:
        return (None,) * len(leaves)
    # Marked, for a None in the model is no leaf of it.
    marked = jax.tree.map(lambda a: _SHARED if a is None else a, chain_axes, is_leaf=is_none)
    try:
        full = jax.tree.broadcast(marked, model)
    except ValueError as error:
        raise InputError(
            f"particle_filter: chain_axes is {chain_axes!r}, which is no tree prefix of the model;"
            " give 0 for its parts that differ between chains and None for the others"
        ) from error
    axes = tuple(None if axis is _SHARED else axis for axis in jax.tree.leaves(full))
    if num_chains is None or not all(axis is None or axis == 0 for axis in axes):
        raise InputError(
            f"particle_filter: chain_axes is {chain_axes!r}; it holds 0 and None only, and wants"
            " num_chains"
        )
    shapes = [jnp.shape(leaf) for leaf, axis in zip(leaves, axes, strict=True) if axis == 0]
    if any(shape[:1] != (num_chains,) for shape in shapes):
        raise InputError(
            f"particle_filter: leaves of the model that differ between chains have shapes {shapes};"
            f" each needs a leading axis of num_chains = {num_chains}"
        )
    return axes


class Chains(NamedTuple):
    """The chains that live on a device.

    Attributes:
        number: C; None is one whose arrays have no axis of chains.
        differing: the leaves in which the chains' models differ, with an axis of chains.
        build: the model of one chain, from its part of them.
    """

    number: int | None
    differing: tuple[Array, ...]
    build: Callable[[tuple[Array, ...]], FeynmanKac]

    @classmethod
    def of(cls, model: Any, axes: Axes, num_chains: int | None) -> Chains:
        """The chains of a model; without differing leaves the model may be no pytree.

        Args:
            model: with an axis of chains in some of its leaves.
            axes: which, as `leaf_axes` tells.
            num_chains: C, or None.
        """
        if all(axis is None for axis in axes):
            return cls(num_chains, (), lambda differing: model)
        leaves, structure = jax.tree.flatten(model)

        def build(differing: tuple[Array, ...]) -> FeynmanKac:
            own = iter(differing)
            pairs = zip(leaves, axes, strict=True)
            return structure.unflatten([a if axis is None else next(own) for a, axis in pairs])

        pairs = zip(leaves, axes, strict=True)
        return cls(num_chains, tuple(jnp.asarray(a) for a, axis in pairs if axis == 0), build)

    def on_device(self, number: int, differing: tuple[Array, ...]) -> Chains:
        """Those of a device, as many as ``number``, with their part of what differs."""
        if number > 1:
            return self._replace(number=number, differing=differing)
        return self._replace(number=None, differing=drop_axis(differing))

    def over(self, function: Callable) -> Callable:
        """``function`` of one chain, on all chains."""
        return function if self.number is None else jax.vmap(function)

    def example(self) -> FeynmanKac:
        """The model of one of the chains."""
        if self.number is None:
            return self.build(self.differing)
        return self.build(tuple(a[0] for a in self.differing))

    def over_particles(self, function: Callable, batch_size: int | None, *trees: PyTree) -> PyTree:
        """``function(model, ...)`` of one particle on all particles of all chains.

        Args:
            function: of the model and of one particle's part of the trees.
            batch_size: at most this many particles, over all chains, are mapped at once.
            *trees: leaves of shape (C, N, ...).

        Returns:
            What it returned, in leaves of shape (C, N, ...).
        """

        def one_chain(size: int | None, differing: tuple[Array, ...], *trees: PyTree) -> PyTree:
            model = self.build(differing)
            return _map(lambda *args: function(model, *args), size, *trees)

        if self.number is None:
            return one_chain(batch_size, self.differing, *trees)
        num_particles = jax.tree.leaves(trees)[0].shape[1]
        if batch_size is None or batch_size >= self.number * num_particles:
            return jax.vmap(partial(one_chain, None))(self.differing, *trees)
        if self.differing:
            at_once = max(1, batch_size // num_particles)
            return _map(partial(one_chain, batch_size), at_once, self.differing, *trees)
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), trees)
        out = one_chain(batch_size, (), *flat)
        shape = (self.number, num_particles)
        return jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), out)


def _map(function: Callable, batch_size: int | None, *trees: PyTree) -> PyTree:
    """``function`` over the leading axis, at most ``batch_size`` at once.

    The fence keeps XLA from fusing the model into the sums over particles, whose rounding would
    then depend on how the particles are batched.
    """
    if batch_size is None or batch_size >= jax.tree.leaves(trees)[0].shape[0]:
        out = jax.vmap(function)(*trees)
    else:
        out = jax.lax.map(lambda args: function(*args), trees, batch_size=batch_size)
    return jax.lax.optimization_barrier(jax.tree.map(_strongly_typed, out))


def _strongly_typed(a: Array) -> Array:
    """Without a weak type, which may differ between the first step and the later ones."""
    return a.astype(a.dtype) if getattr(a, "weak_type", False) else a
