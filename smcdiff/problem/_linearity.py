"""Is the observation linear? Two tests of its means, or of a log likelihood without means."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from smcdiff.errors import NO_DERIVATIVE, InputError, first_line
from smcdiff.problem import _sites as sites
from smcdiff.problem._dependence import depends_on_first
from smcdiff.problem.linear import LinearObservation, expand
from smcdiff.problem.problem import Problem

_SIZE, _SLOPE = 1e-5, 1e-4
"""What float32 loses: sums of thousands of terms 1e-6 of the largest, and slopes may be steep."""
LARGEST_QUADRATIC = 1024
"""Entries of x whose dense Hessian and its eigenvectors cost little beside a run."""
_CUTOFF = 1e-5
"""Of the largest eigenvalue of a Hessian, below which one is zero, in float32."""
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
    except NO_DERIVATIVE:
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
    except NO_DERIVATIVE as error:
        raise InputError(
            f"{where} has no forward derivative ({first_line(error)}), by which samplers multiply"
            " with its operator; give its function a jax.custom_jvp, or drop linear=True"
        ) from error
    if not straight:
        raise InputError(
            f"{where} is not affine in '{problem.site}': between random points it does not follow"
            " its tangent; drop linear=True"
        )


def quadratic_rank(problem: Problem) -> int | None:
    """The rank of the Hessian of a log likelihood that is a concave quadratic function of x.

    That is a linear-Gaussian observation, which ``numpyro.factor`` may say, or a distribution of
    one's own. The Hessian must not depend on x, and the quadratic function that it makes must be
    the log likelihood at random points.

    Args:
        problem: a problem with an observed site that is neither Gaussian nor exact.

    Returns:
        The rank, or None where the log likelihood is of another kind, or flat, or x has more than
        `LARGEST_QUADRATIC` entries.
    """
    if problem.size > LARGEST_QUADRATIC:
        return None
    points = problem.prior.probe_points(3)
    try:
        if not _has_one_hessian(problem, points[0]):
            return None
        precisions = np.asarray(_precisions(problem))
    except NO_DERIVATIVE:
        return None
    rank = int(np.sum(precisions > _CUTOFF * precisions[-1]))
    is_concave = precisions[-1] > 0.0 and precisions[0] > -_CUTOFF * precisions[-1]
    return rank if is_concave and bool(_is_quadratic(problem, points, rank)) else None


@jax.jit  # a property of the program, found once for all its data
def _has_one_hessian(problem: Problem, x: Float[Array, "*event"]) -> Bool[Array, ""]:
    """Whether the Hessian of the log likelihood does not depend on x."""

    def product(x: Array, direction: Array) -> Array:
        gradient = jax.grad(problem.log_likelihood)
        return jax.jvp(gradient, (x,), (direction,))[1]

    return jnp.asarray(not depends_on_first(product, x, x))


@jax.jit
def _precisions(problem: Problem) -> Float[Array, " d"]:
    """Eigenvalues of minus the Hessian of the log likelihood, increasing."""
    return jnp.linalg.eigvalsh(-expand(problem.log_likelihood, problem.event_shape)[2])


@partial(jax.jit, static_argnames="rank")
def _is_quadratic(
    problem: Problem, points: Float[Array, " 3 *event"], rank: int
) -> Bool[Array, ""]:
    """Whether the observation that the expansion makes has the log likelihood at the points."""
    made = LinearObservation.of_quadratic(problem.log_likelihood, problem.event_shape, rank)

    def difference(x: Array) -> tuple[Array, Array]:
        misfit = 0.5 * jnp.sum(made.residual(x) ** 2)
        return made.log_constant - misfit - problem.log_likelihood(x), 1.0 + misfit

    error, size = jax.vmap(difference)(points)
    return jnp.all(jnp.abs(error) <= _SLOPE * size)


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


@jax.jit  # what depends on what is a property of the program, found once for all its data
def _is_affine(problem: Problem, points: Float[Array, " 3 *event"]) -> Bool[Array, ""]:
    """Both tests of the means, and whether the rest depends on x."""

    def slope(x, direction):
        return jax.jvp(lambda x: _means(problem, x), (x,), (direction,))[1]

    if depends_on_first(slope, points[0], points[1]):
        return jnp.asarray(False)
    if depends_on_first(lambda x: _other_parameters(problem, x), points[0]):
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
