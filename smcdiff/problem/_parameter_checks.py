"""What is wrong with the unknown parameters of a model, in one line that names the remedy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smcdiff.base._trees import are_equal
from smcdiff.errors import NO_DERIVATIVE, InputError
from smcdiff.problem import _sites as sites
from smcdiff.problem._dependence import depends_on_first
from smcdiff.problem._observation import ExactObservation
from smcdiff.problem.problem import Problem


def check(problem: Problem) -> None:
    """Raises ``InputError`` where the parameters of a problem cannot be inferred.

    Args:
        problem: with unknown parameters.

    Raises:
        InputError: an exact observation, a prior that depends on x, a diffusion prior that depends
            on the parameters, a parameter that nothing observed depends on, or a prior that is not
            finite at its own draws.
    """
    names = problem.parameter_names
    if issubclass(problem.kind, ExactObservation):
        raise InputError(
            f"site '{problem.observed_sites[0]}' is observed without noise (Delta), while"
            f" {list(names)} are unknown; give the site noise (dist.Normal), or pass their values"
        )
    for name in names:
        if depends_on_first(lambda x, name=name: _log_prior(problem, x, name), _origin(problem)):
            raise InputError(
                f"site '{name}' is latent, and its distribution depends on '{problem.site}'; pass"
                f" its data, for example {name}=..., or make its prior independent of"
                f" '{problem.site}' and put the dependence into the mean of what is observed"
            )
        if not _is_seen(problem, name):
            raise InputError(
                f"nothing that is observed depends on site '{name}', so that it keeps its prior;"
                " remove it, or use it in an observed site"
            )
    if not _has_one_prior(problem):
        raise InputError(
            f"the diffusion prior of site '{problem.site}' depends on {list(names)}, which is not"
            " supported; give their values, or transform x in the mean of what is observed"
        )
    if not bool(_is_proper(problem)):
        raise InputError(
            f"the prior of {list(names)} is not finite at draws of its own; check its parameters"
            " and its support"
        )


def has_slope(problem: Problem) -> bool:
    """Whether the log likelihood has a derivative in the unknown parameters."""
    try:
        _slope.eval_shape(problem)
    except NO_DERIVATIVE:
        return False
    return True


@jax.jit  # traced once, and never run
def _slope(problem: Problem) -> Float[Array, " p"]:
    values = problem.unknowns.values
    return jax.grad(lambda u: problem.at(u).log_likelihood(_origin(problem)))(values)


def _origin(problem: Problem) -> Float[Array, "*event"]:
    return jnp.zeros(problem.event_shape)


def _log_prior(problem: Problem, x: Float[Array, "*event"], name: str) -> Array:
    return jnp.sum(sites.log_prob(problem.trace(x)[name]))


def _has_one_prior(problem: Problem) -> bool:
    """Whether each diffusion site has the same prior at another value of the parameters."""
    found, other = (
        own.trace() for own in (problem, problem.at(problem.draw_parameters(jax.random.key(1))))
    )
    return all(
        are_equal(sites.unwrap(found[name]["fn"]), sites.unwrap(other[name]["fn"]))
        for name in problem.layout.names
    )


def _is_seen(problem: Problem, name: str) -> bool:
    """Whether what is observed, or the prior of another parameter, depends on a parameter."""
    own = problem.unknowns.by_site

    def rest(part: Array) -> list[Array]:
        values = jnp.concatenate([jnp.ravel({**own, name: part}[site]) for site in own])
        found = problem.at(values).trace(_origin(problem))
        others = [other for other in (*own, *problem.observed_sites) if other != name]
        return [jnp.sum(sites.log_prob(found[other])) for other in others]

    return depends_on_first(rest, own[name])


@jax.jit
def _is_proper(problem: Problem) -> Bool[Array, ""]:
    """Whether the prior density is finite at draws."""

    def log_prior(key: Array) -> Float[Array, ""]:
        return problem.at(problem.draw_parameters(key)).log_prior()

    return jnp.all(jnp.isfinite(jax.vmap(log_prior)(jax.random.split(jax.random.key(3), 16))))
