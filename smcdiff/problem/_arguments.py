"""A model's arguments, split into arrays (jit arguments) and the static rest."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array

from smcdiff.errors import InputError


@dataclasses.dataclass(frozen=True)
class StaticArguments:
    """The static side of a model's arguments: tree structure, and the leaves that are not arrays.

    Attributes:
        structure: tree structure of ``(args, kwargs)``.
        values: leaves that are not arrays, hashable.
        is_array: for each leaf, whether it is an array.
    """

    structure: Any
    values: tuple
    is_array: tuple[bool, ...]

    def rebuild(self, arrays: tuple[Array, ...]) -> tuple[tuple, dict]:
        """``(args, kwargs)`` from the array leaves."""
        remaining, others = iter(arrays), iter(self.values)
        leaves = [next(remaining) if flag else next(others) for flag in self.is_array]
        return jax.tree.unflatten(self.structure, leaves)


def _is_array(leaf) -> bool:
    # Objects of other array libraries and images convert through __array__; numbers do not have it.
    return isinstance(leaf, (jax.Array, np.generic, float, complex)) or hasattr(leaf, "__array__")


_WIDEST = {"f": np.float64, "c": np.complex128}
"""What JAX takes of floating and of complex numbers."""


def _as_array(leaf) -> Array:
    if isinstance(leaf, (jax.Array, float, complex)):
        return jnp.asarray(leaf)
    if np.ma.is_masked(leaf):
        raise InputError(
            "a model argument is a masked array, whose mask JAX would drop; pass"
            " array.filled(0.0), and put numpyro.handlers.mask(mask=~array.mask) around the site"
        )
    # A copy: JAX takes a NumPy array that it has seen for the one that it was then.
    values = np.array(leaf)
    widest = _WIDEST.get(values.dtype.kind, values.dtype)
    if values.dtype.itemsize > np.dtype(widest).itemsize:  # extended precision
        values = values.astype(widest)
    try:
        return jnp.asarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    except TypeError as error:
        raise InputError(
            f"a model argument of type {type(leaf).__name__} does not hold numbers;"
            " convert it to a numeric array"
        ) from error


def split(args: tuple, kwargs: dict) -> tuple[tuple[Array, ...], StaticArguments]:
    """Splits a model's arguments.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.

    Returns:
        The array leaves (Python floats count), and the static rest: integers, booleans, strings,
        functions and other hashable objects.

    Raises:
        InputError: a leaf that is neither an array nor hashable, or an array of no numbers.
    """
    leaves, structure = jax.tree.flatten((args, kwargs))
    flags = tuple(_is_array(leaf) for leaf in leaves)
    arrays = tuple(_as_array(a) for a, flag in zip(leaves, flags, strict=True) if flag)
    others = tuple(a for a, flag in zip(leaves, flags, strict=True) if not flag)
    for value in others:
        try:
            hash(value)
        except TypeError as error:
            raise InputError(
                f"a model argument of type {type(value).__name__} is neither an array nor hashable;"
                " pass arrays, numbers, strings, functions or pytrees of them"
            ) from error
    return arrays, StaticArguments(structure, others, flags)


def check_model(model: Any) -> None:
    """Raises ``InputError`` where what was passed is no model: a prior, or what one returned."""
    if callable(model) and not isinstance(model, dist.Distribution):
        return
    what = "distribution" if isinstance(model, dist.Distribution) else "value"
    raise InputError(
        f"the model is a {what} ({type(model).__name__}), and no function; pass one that samples"
        ' the prior at a site and observes y: def model(y=None): x = numpyro.sample("x", prior);'
        ' numpyro.sample("y", dist.Normal(x, 0.1).to_event(), obs=y)'
    )


def check_signature(model: Callable, args: tuple, kwargs: dict) -> None:
    """Raises ``InputError`` where a model does not take these arguments, and names them."""
    check_model(model)
    try:
        signature = inspect.signature(model)
    except (TypeError, ValueError):  # some callables have none; the trace will tell
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"the model takes {signature}: {error}; pass its arguments to run, for example y=..."
        ) from error


def with_arrays(args: tuple, kwargs: dict, data: list[Any]) -> tuple[tuple, dict]:
    """The arguments with arrays in place of lists of numbers that are data, as NumPyro takes them.

    A list of another kind, of sizes say, stays one.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
        data: values of observed sites; those of the arguments that are one of these objects.
    """

    def converted(value: Any) -> Any:
        if not _is_list(value) or not any(value is one for one in data):
            return value
        try:
            array = np.asarray(value)
        except ValueError:  # of lists of unequal length
            return value
        return array if array.dtype.kind in "biuf" else value

    return tuple(map(converted, args)), {name: converted(v) for name, v in kwargs.items()}


def has_lists(args: tuple, kwargs: dict) -> bool:
    """Whether an argument may be data in a list."""
    return any(map(_is_list, (*args, *kwargs.values())))


def _is_list(value: Any) -> bool:
    return type(value) in (list, tuple) and len(value) > 0


def check_concrete(*trees: Any) -> None:
    """Raises ``InputError`` where something is being traced: a run compiles by itself."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees)):
        raise InputError(
            "SMC.run is called under jax.jit, vmap or grad; it compiles by itself, so call it"
            " outside, and use SMC.run_batch for several observations"
        )
