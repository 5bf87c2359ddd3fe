"""Is the observation linear-Gaussian? Probe points, and the tests of the mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import Array, Float

from smcdiff.diffusion import schedules
from smcdiff.priors.base import DiffusionDistribution
from smcdiff.problem import sites
from smcdiff.problem.problem import Problem


@jax.jit(static_argnames=("count",))  # one compilation, where eager costs one an operation
def probe_points(prior: DiffusionDistribution, count: int) -> Float[Array, " count *event"]:
    """Random points at the location and scale of a prior, without running its reverse process.

    Args:
        prior: the prior.
        count: how many points.

    Returns:
        The points; always the same ones for a prior.
    """
    try:
        level = schedules.levels(prior.schedule, jnp.asarray(prior.schedule.t_max))
        scale = jnp.sqrt(prior.spread(level))
    except NotImplementedError:
        scale = jnp.ones(())
    try:
        centre = jnp.reshape(prior.mean, prior.event_shape)
    except NotImplementedError:  # learned priors know no mean; data are roughly centred
        centre = jnp.zeros(prior.event_shape)
    return centre + scale * jax.random.normal(jax.random.key(1), (count, *prior.event_shape))


def is_linear_gaussian(problem: Problem) -> bool:
    """Whether Gaussian or exact sites have means affine in x, and all else independent of x.

    Two tests of the means, each of which some nonlinear functions pass, but hardly both: the
    tangent must not depend on x (``round`` and ``stop_gradient`` pass), and must agree with finite
    differences between three random points (``clip`` passes where they are small). Affine means
    that hide it, an iterative solver or terms that cancel, fail: a declaration is for them.

    Args:
        problem: a problem whose observed sites are all Gaussian or exact.

    Returns:
        Whether the observation is linear.
    """
    points = probe_points(problem.prior, 3)

    def slope(x, direction):
        return jax.jvp(lambda x: _means(problem, x), (x,), (direction,))[1]

    try:
        if _depends_on_first(slope, points[0], points[1]):
            return False
        if _depends_on_first(lambda x: _other_parameters(problem, x), points[0]):
            return False
    except (TypeError, ValueError, NotImplementedError):  # no derivative: a callback, say
        return False
    return bool(_is_straight(problem, points))


def _means(problem: Problem, x) -> list[Array]:
    return [sites.mean(site) for site in problem.observed(x).values()]


def _other_parameters(problem: Problem, x) -> list[Array]:
    """Everything but the means that the density of the observation depends on."""
    result = []
    for site in problem.observed(x).values():
        weight = 1.0 if site["scale"] is None else site["scale"]
        masked = sites.mask(site["fn"], site["value"])
        exact = sites.is_exact(site)
        scale = sites.unwrap(site["fn"]).log_density if exact else sites.gaussian_scale(site)
        parameters = (scale, masked, weight, site["value"])
        result += [jnp.asarray(parameter) for parameter in parameters]
    return result


def _depends_on_first(function, *args) -> bool:
    """Whether the output depends on the first argument, after dead code is removed."""
    jaxpr = jax.make_jaxpr(function)(*args)
    _, used = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    return used[0]


@jax.jit
def _is_straight(problem: Problem, points: Float[Array, " 3 *event"]) -> Array:
    """Whether the means between the first point and the others follow the tangent."""
    result = jnp.asarray(True)
    start, ends = points[0], points[1:]
    for end in ends:
        values, slopes = jax.jvp(lambda x: _means(problem, x), (start,), (end - start,))
        for value, slope, other in zip(values, slopes, _means(problem, end), strict=True):
            size = jnp.max(jnp.abs(value)) + jnp.max(jnp.abs(other))
            # float32 sums of thousands of terms lose about 1e-6 of the largest; slopes may be steep
            tolerance = 1e-5 * size + 1e-4 * jnp.max(jnp.abs(slope))
            result &= jnp.all(jnp.abs(value + slope - other) <= tolerance)
    return result
