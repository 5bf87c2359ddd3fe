"""Exact observations, ``numpyro.sample("y", dist.Delta(A(x)).to_event(), obs=y)``.

The posterior is that of x given A x = y. It is defined where all observed sites are exact, A is
linear and some x satisfies them.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.errors import InputError
from smcdiff.operators.base import LARGEST_DENSE
from smcdiff.problem import sites
from smcdiff.problem.problem import Problem
from smcdiff.problem.sites import Site

_CUTOFF, _TOLERANCE = 1e-6, 1e-4


def is_noise_free(observed: dict[str, Site]) -> bool:
    """Whether the observed sites are exact.

    Args:
        observed: observed sites of the model.

    Raises:
        InputError: some sites are exact and others not, or an exact one is scaled or complex.
    """
    exact = [name for name, site in observed.items() if sites.is_exact(site)]
    if not exact:
        return False
    others = [name for name in observed if name not in exact]
    if others:
        raise InputError(
            f"sites {exact} are observed without noise (Delta) and sites {others} are not; give all"
            " of them noise (dist.Normal), or none"
        )
    for name in exact:
        if observed[name]["scale"] is not None:
            raise InputError(
                f"site '{name}': handlers.scale has no meaning for an exact observation (Delta);"
                " leave it out"
            )
        if jnp.iscomplexobj(sites.mean(observed[name])):
            raise InputError(
                f"site '{name}': its value is complex; take the real and imaginary parts"
            )
    return True


def check_linear(problem: Problem) -> None:
    """Raises ``InputError`` where an exact observation is not linear."""
    if not problem.linear:
        raise InputError(
            f"site '{problem.observed_sites[0]}': an exact observation (Delta) must be linear in"
            f" '{problem.site}', and this was not found to be; give it noise (dist.Normal), or pass"
            " linear=True if it is"
        )


def check_consistent(problem: Problem) -> None:
    """Raises ``InputError`` where no x satisfies an exact observation.

    Least squares in float64, with a ridge where single precision sees nothing. Operators that are
    too large for it are not checked here: only masks are sampled at that size, and their samplers
    look for themselves.

    Args:
        problem: a linear and noise-free problem.

    Raises:
        InputError: observed values that disagree or lie outside the range of the operator.
    """
    if min(math.prod(problem.event_shape), problem.num_observations) > LARGEST_DENSE:
        return
    matrix, values, largest = (np.asarray(a, np.float64) for a in _system(problem))
    wide = matrix.shape[0] <= matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    ridge = max(_CUTOFF**2 * np.abs(gram).sum(axis=0).max(), 1e-30)
    right = values if wide else matrix.T @ values
    solution = np.linalg.solve(gram + ridge * np.eye(len(gram)), right)
    left = np.abs(values - (gram if wide else matrix) @ solution)
    worst = int(np.argmax(left))
    if left[worst] > _TOLERANCE * largest:
        raise InputError(
            f"site '{_site_of(problem, worst)}': no '{problem.site}' satisfies this exact"
            f" observation, the nearest one misses an entry by {left[worst]:.2g}; check repeated"
            " rows and the range of the operator, or give it noise (dist.Normal)"
        )


@jax.jit
def _system(problem: Problem) -> tuple[Float[Array, "m d"], Float[Array, " m"], Array]:
    """The dense operator A, y - A 0, and the largest number in either y or that."""
    at_zero, largest = problem.residual(jnp.zeros(problem.event_shape)), jnp.zeros(())
    for site in problem.observed().values():
        used = sites.mask(site["fn"], site["value"])
        largest = jnp.maximum(largest, jnp.max(jnp.where(used, jnp.abs(site["value"]), 0.0)))
    return problem.matrix(), at_zero, jnp.maximum(largest, jnp.max(jnp.abs(at_zero)))


def _site_of(problem: Problem, index: int) -> str:
    """Name of the site that an entry of the residual belongs to."""
    for name, value in problem.observations().items():
        if index < jnp.size(value):
            return name
        index -= jnp.size(value)
    raise IndexError(index)
