"""Which operator of the package a model applies to x.

Ordinary NumPyro code says ``dist.Normal(blur(x), noise)``; what comes of the trace is a mean, an
array. While the model runs once for its sites, every call of a `smcdiff.operators.LinearOperator`
is recorded. Calls on x itself, and on what such calls returned, are candidates; a candidate is the
operator of the model if the mean, which is known to be affine in x, moves with x as the candidate
does, up to a constant factor, at random points. A mean that picks entries of x by indexing or a
mask of the user's own is recognised as a `Mask` in the same way.

What is not recognised is no error: samplers then take the products of the mean's derivative.
"""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.operators import LinearOperator, Mask, Reshape, Scaled
from smcdiff.operators._recording import Call
from smcdiff.problem import _sites as sites
from smcdiff.problem.linear import RecognisedOperator
from smcdiff.problem.problem import Problem

_TOLERANCE = 1e-4
"""Of the largest entry of the mean: float32 products of thousands of terms agree to 1e-5."""


def candidates(calls: list[Call], x: Array) -> list[LinearOperator]:
    """The operators that a trace applied to x, one after the other; the last made come first."""
    made: list[tuple[Array, LinearOperator]] = []
    for call in calls:
        operator = cast(LinearOperator, call.operator)  # `_recording` is below the operators
        inner = [before for output, before in made if output is call.x]
        if call.x is x:
            made.append((call.y, operator))
        elif inner:
            made.append((call.y, operator @ inner[0]))
    return [operator for _, operator in reversed(made)]


def recognise(problem: Problem, found: list[LinearOperator]) -> RecognisedOperator | None:
    """The operator of the package that a linear problem's mean applies to x, if it is one.

    Args:
        problem: a problem whose observation is linear.
        found: candidates.
    """
    if any(root is None for root in precision_roots(problem)):
        return None  # correlated noise mixes the rows
    points = jax.random.normal(jax.random.key(2), (2, *problem.event_shape))
    moved = np.asarray(_moved(problem, points))
    for operator in found:
        if operator.in_shape != problem.event_shape or _size(operator) != moved.shape[1]:
            continue
        products = np.asarray(_products(operator, points))
        gain = _gain(products, moved)
        if gain is not None:
            flat = Reshape(operator.out_shape, (moved.shape[1],)) @ operator
            return _kept(Scaled(flat, jnp.asarray(gain, moved.dtype)), np.arange(moved.shape[1]))
    return _selection(problem, points[0], moved[0])


def moves_alike(problem: Problem, other: Problem) -> bool:
    """Whether the means of a linear problem move with x as those of another one do.

    Args:
        problem: a problem whose observation is linear.
        other: the same at another value of its parameters.
    """
    points = jax.random.normal(jax.random.key(2), (2, *problem.event_shape))
    moved, others = np.asarray(_moved(problem, points)), np.asarray(_moved(other, points))
    return bool(np.max(np.abs(moved - others)) <= _TOLERANCE * np.max(np.abs(moved)))


@jax.jit  # one compilation, where eager costs one an operation
def precision_roots(problem: Problem) -> list[Float[Array, " _"] | None]:
    """Of each observed site what whitening multiplies by; see `_sites.precision_roots`."""
    return [sites.precision_roots(site) for site in problem.observe_gaussian().sites.values()]


def _size(operator: LinearOperator) -> int:
    return int(np.prod(operator.out_shape))


@jax.jit
def _moved(problem: Problem, points: Float[Array, " n *event"]) -> Float[Array, "n m"]:
    """By how much the means of all sites, flat, move from x = 0 to the points."""

    def means(x):
        found = problem.observe_gaussian(x).sites.values()
        shapes = [jnp.shape(site["value"]) for site in found]
        pairs = zip(found, shapes, strict=True)
        return jnp.concatenate([jnp.ravel(jnp.broadcast_to(sites.mean(s), n)) for s, n in pairs])

    origin = jnp.zeros(problem.event_shape)
    return jax.vmap(lambda x: jax.jvp(means, (origin,), (x,))[1])(points)


@jax.jit
def _products(operator: LinearOperator, points: Float[Array, " n *event"]) -> Float[Array, "n m"]:
    return jax.vmap(lambda x: jnp.ravel(operator(x)))(points)


def _gain(products: np.ndarray, moved: np.ndarray) -> float | None:
    """The factor from one to the other, or None where they are not multiples."""
    square = float(np.sum(products.astype(np.float64) ** 2))
    gain = float(np.sum(products.astype(np.float64) * moved)) / square if square > 0.0 else 0.0
    error = np.max(np.abs(moved - gain * products))
    return gain if gain != 0.0 and error <= _TOLERANCE * np.max(np.abs(moved)) else None


def _kept(operator: LinearOperator, rows: np.ndarray) -> RecognisedOperator:
    return RecognisedOperator(operator, jnp.asarray(rows, jnp.int32))


def _selection(
    problem: Problem, point: Float[Array, "*event"], moved: np.ndarray
) -> RecognisedOperator | None:
    """Single entries of x, each at most once, times gains; rows that see nothing are left out."""
    numbers = jnp.arange(problem.size, dtype=point.dtype).reshape(problem.event_shape)
    gains, numbered = np.asarray(_moved(problem, jnp.stack([jnp.ones_like(point), numbers])))
    rows = np.flatnonzero(gains)
    indices = np.rint(numbered[rows] / gains[rows]).astype(np.int64)
    if not rows.size or np.any((indices < 0) | (indices >= problem.size)):
        return None
    expected = np.zeros_like(moved)
    expected[rows] = gains[rows] * np.ravel(np.asarray(point))[indices]
    error = np.max(np.abs(moved - expected))
    if error > _TOLERANCE * np.max(np.abs(moved)) or len(np.unique(indices)) != len(indices):
        return None
    mask = Mask(jnp.asarray(indices, jnp.int32), problem.event_shape)
    return _kept(Scaled(mask, jnp.asarray(gains[rows], point.dtype)), rows)
