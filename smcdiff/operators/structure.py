"""What is known of an operator beforehand, and arrays that stay known inside a traced function."""

from __future__ import annotations

import contextlib
import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

EXACT = jax.lax.Precision.HIGHEST
"""For products of matrices: GPUs may round factors to ten bits (TF32) where nothing is said."""


class Rows(enum.IntEnum):
    """What is known of the rows of A = S Q, Q with orthonormal rows; each implies the one before.

    Attributes:
        ANY: nothing.
        PARALLEL: S has at most one entry in each row: two rows of A are orthogonal or parallel.
        ORTHOGONAL: S is diagonal and not negative; ``svd()`` gives S, Q and a `Reshape` as left.
        ORTHONORMAL: S is the identity.
    """

    ANY = 0
    PARALLEL = 1
    ORTHOGONAL = 2
    ORTHONORMAL = 3


class Structure(NamedTuple):
    """What is known of an operator without any work; hashable, and the same inside ``jax.jit``.

    Attributes:
        rows: see `Rows`.
        isometry: the columns are orthonormal.
        selects: each entry of an observation is one entry of the event, none of them twice.
    """

    rows: Rows = Rows.ANY
    isometry: bool = False
    selects: bool = False


def is_known(*values: Any) -> bool:
    """Whether no array in the values is traced, so that their numbers can be looked at."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def at_once(*values: Any) -> contextlib.AbstractContextManager:
    """Computes now what depends on no traced value, inside a traced function too.

    Operators are often made inside a model, which is traced. JAX would stage their arrays as well,
    and whether indices repeat or rows are orthogonal could not be seen any more.
    """
    return jax.ensure_compile_time_eval() if is_known(*values) else contextlib.nullcontext()


def as_floats(values: Any) -> Array:
    """An array of JAX of floating-point numbers; made at once where nothing is traced."""
    with at_once(values):
        array = _on_device(values)
        return array.astype(jnp.result_type(array, float))


def as_indices(values: Any) -> Array:
    """An array of JAX of 32-bit integers; made at once where nothing is traced."""
    with at_once(values):
        return _on_device(values).astype(jnp.int32)


def _on_device(values: Any) -> Array:
    """As ``jnp.asarray``, which compiles a program for each shape of a NumPy array.

    Of a copy: on the CPU ``device_put`` may keep the caller's memory, who may change it.
    """
    if isinstance(values, jax.Array) or not is_known(values):
        return jnp.asarray(values)
    return jax.device_put(np.array(values))
