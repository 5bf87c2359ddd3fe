"""Exact observations, ``numpyro.sample("y", dist.Delta(A(x)).to_event(), obs=y)``.

The posterior is that of x given A x = y. It is defined where all observed sites are exact, A is
linear and some x satisfies them.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.errors import InputError
from smcdiff.operators.base import LARGEST_DENSE
from smcdiff.problem import _sites as sites
from smcdiff.problem.problem import Problem

_CUTOFF, _TOLERANCE = 1e-6, 1e-4


def check_linear(problem: Problem) -> None:
    """Raises ``InputError`` where an exact observation is not linear."""
    if not problem.is_linear:
        raise InputError(
            f"site '{problem.observed_sites[0]}': an exact observation (Delta) must be linear in"
            f" '{problem.site}', and this was not found to be; give it noise (dist.Normal), or pass"
            " linear=True if it is"
        )


def check_consistent(problem: Problem) -> None:
    """Raises ``InputError`` where no x satisfies an exact observation.

    By the decomposition of an operator that knows its own; else by least squares in float64, with a
    ridge where single precision sees nothing. Operators that are too large for it are not checked:
    no sampler takes an exact observation of those.

    Args:
        problem: a linear and noise-free problem.

    Raises:
        InputError: observed values that disagree or lie outside the range of the operator.
    """
    known = problem.recognised is not None and problem.linear_observation().operator.structured
    if known:
        left, largest = (np.asarray(a) for a in _left_of_known(problem))
    elif min(problem.size, problem.num_observations) <= LARGEST_DENSE:
        matrix, values, largest = (np.asarray(a, np.float64) for a in _system(problem))
        left = _left_of_dense(matrix, values)
    else:
        return
    worst = int(np.argmax(left))
    if left[worst] > _TOLERANCE * largest:
        raise InputError(
            f"site '{_site_of(problem, worst)}': no '{problem.site}' satisfies this exact"
            f" observation, the nearest one misses an entry by {left[worst]:.2g}; check repeated"
            " rows and the range of the operator, or give it noise (dist.Normal)"
        )


def _left_of_dense(
    matrix: Float[np.ndarray, "m d"], values: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """By how much the nearest x misses each value."""
    wide = matrix.shape[0] <= matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    ridge = max(_CUTOFF**2 * np.abs(gram).sum(axis=0).max(), 1e-30)
    right = values if wide else matrix.T @ values
    solution = np.linalg.solve(gram + ridge * np.eye(len(gram)), right)
    return np.abs(values - (gram if wide else matrix) @ solution)


@jax.jit
def _left_of_known(problem: Problem) -> tuple[Float[Array, " m"], Float[Array, ""]]:
    """By how much the nearest x misses each value, and the largest number in y or y - A 0."""
    at_zero, largest = _at_zero(problem)
    observation, recognised = problem.linear_observation(), problem.recognised
    assert recognised is not None  # by check_consistent
    nearest = observation.operator.svd().pseudo_inverse(observation.target)
    # Rows that see nothing of x keep what they have at x = 0.
    return jnp.abs(at_zero.at[recognised.rows].set(observation.residual(nearest))), largest


@jax.jit
def _system(problem: Problem) -> tuple[Float[Array, "m d"], Float[Array, " m"], Float[Array, ""]]:
    """The dense operator A, y - A 0, and the largest number in y or that."""
    at_zero, largest = _at_zero(problem)
    # From the model: rows of a recognised operator that see nothing of x are left out.
    matrix = dataclasses.replace(problem, recognised=None).linear_observation().operator.as_matrix()
    return matrix, at_zero, largest


def _at_zero(problem: Problem) -> tuple[Float[Array, " m"], Float[Array, ""]]:
    """What is left of y at x = 0, and the largest number in y or that."""
    observation = problem.observe_gaussian()
    at_zero, largest = observation.whitened, jnp.zeros(())
    for site in observation.sites.values():
        used = sites.mask(site["fn"], site["value"])
        largest = jnp.maximum(largest, jnp.max(jnp.where(used, jnp.abs(site["value"]), 0.0)))
    return at_zero, jnp.maximum(largest, jnp.max(jnp.abs(at_zero)))


def _site_of(problem: Problem, index: int) -> str:
    """Name of the site that an entry of the residual belongs to."""
    for name, value in problem.observe().values.items():
        if index < jnp.size(value):
            return name
        index -= jnp.size(value)
    raise IndexError(index)
