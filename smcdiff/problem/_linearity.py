"""Is the observation linear? Two tests of its means."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import Array, Bool, Float

from smcdiff.errors import InputError, first_line
from smcdiff.problem import _sites as sites
from smcdiff.problem.problem import Problem

_SIZE, _SLOPE = 1e-5, 1e-4
"""What float32 loses: sums of thousands of terms 1e-6 of the largest, and slopes may be steep."""
_NO_DERIVATIVE = (TypeError, ValueError, NotImplementedError)
"""What JAX raises at a callback, or at a function with a backward rule alone."""
_DECLARED = 100.0
"""A declaration is for means that hide it, an iterative solver's among them: so much looser."""


def is_linear(problem: Problem) -> bool:
    """Whether Gaussian or exact sites have means affine in x, and all else independent of x.

    Two tests of the means, each of which some nonlinear functions pass, but hardly both: the
    tangent must not depend on x (``round`` and ``stop_gradient`` pass), and must agree with finite
    differences between three random points (``clip`` passes where they are small). Affine means
    that hide it, an iterative solver or terms that cancel, fail: a declaration is for them.

    Args:
        problem: a problem whose observed sites are all Gaussian or exact.
    """
    try:
        return bool(_is_affine(problem, problem.prior.probe_points(3)))
    except _NO_DERIVATIVE:
        return False


def check_declared(problem: Problem) -> None:
    """Raises ``InputError`` where a declaration that the means are affine cannot be believed.

    Args:
        problem: a problem whose observed sites are all Gaussian or exact.
    """
    where = f"linear=True, but the mean of site '{problem.observed_sites[0]}'"
    try:
        points = problem.prior.probe_points(3)
        straight = bool(_is_straight(problem, points, jnp.asarray(_DECLARED)))
    except _NO_DERIVATIVE as error:
        raise InputError(
            f"{where} has no forward derivative ({first_line(error)}), by which samplers multiply"
            " with its operator; give its function a jax.custom_jvp, or drop linear=True"
        ) from error
    if not straight:
        raise InputError(
            f"{where} is not affine in '{problem.site}': between random points it does not follow"
            " its tangent; drop linear=True"
        )


def _means(problem: Problem, x: Float[Array, "*event"]) -> list[Array]:
    return [sites.mean(site) for site in problem.observe(x).sites.values()]


def _other_parameters(problem: Problem, x: Float[Array, "*event"]) -> list[Array]:
    """Everything but the means that the density of the observation depends on."""
    result = []
    for site in problem.observe(x).sites.values():
        weight = 1.0 if site["scale"] is None else site["scale"]
        masked = sites.mask(site["fn"], site["value"])
        exact = sites.is_exact(site)
        scale = sites.unwrap(site["fn"]).log_density if exact else sites.gaussian_scale(site)
        parameters = (scale, masked, weight, site["value"])
        result += [jnp.asarray(parameter) for parameter in parameters]
    return result


def _depends_on_first(function: Callable, *args: Array) -> bool:
    """Whether the output depends on the first argument, after dead code is removed."""
    jaxpr = jax.make_jaxpr(function)(*args)
    _, used = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    return used[0]


@jax.jit  # what depends on what is a property of the program, found once for all its data
def _is_affine(problem: Problem, points: Float[Array, " 3 *event"]) -> Bool[Array, ""]:
    """Both tests of the means, and whether the rest depends on x."""

    def slope(x, direction):
        return jax.jvp(lambda x: _means(problem, x), (x,), (direction,))[1]

    if _depends_on_first(slope, points[0], points[1]):
        return jnp.asarray(False)
    if _depends_on_first(lambda x: _other_parameters(problem, x), points[0]):
        return jnp.asarray(False)
    return _is_straight(problem, points, jnp.ones(()))


@jax.jit
def _is_straight(
    problem: Problem, points: Float[Array, " 3 *event"], slack: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether the means between the first point and the others follow the tangent."""
    result = jnp.asarray(True)
    start, ends = points[0], points[1:]
    for end in ends:
        values, slopes = jax.jvp(lambda x: _means(problem, x), (start,), (end - start,))
        for value, slope, other in zip(values, slopes, _means(problem, end), strict=True):
            size = jnp.max(jnp.abs(value)) + jnp.max(jnp.abs(other))
            tolerance = slack * (_SIZE * size + _SLOPE * jnp.max(jnp.abs(slope)))
            result &= jnp.all(jnp.abs(value + slope - other) <= tolerance)
    return result
