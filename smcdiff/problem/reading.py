"""`read`: from a NumPyro model and its arguments to a `Problem`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpyro

from smcdiff.errors import InputError, first_line
from smcdiff.problem import arguments, checks, noise_free, sites
from smcdiff.problem.fingerprint import fingerprint
from smcdiff.problem.linearity import is_linear_gaussian
from smcdiff.problem.problem import Problem


def read(
    model: Callable, args: tuple = (), kwargs: dict | None = None, *, linear: bool | None = None
) -> Problem:
    """Reads a NumPyro model. Eager and cheap: no prior is sampled.

    Args:
        model: the model; one of its sample sites has a `DiffusionDistribution`.
        args: positional arguments of the model.
        kwargs: keyword arguments of the model, the observed values among them.
        linear: None detects whether the observation is linear-Gaussian, True declares it, False
            denies it.

    Returns:
        The problem.

    Raises:
        InputError: the model or its data cannot be used; names the site and the remedy.
    """
    kwargs = kwargs or {}
    arguments.check_signature(model, args, kwargs)
    arrays, static = arguments.split(args, kwargs)
    args, kwargs = static.rebuild(arrays)
    with numpyro.validation_enabled(False):  # our own checks can name the site
        trace = _run(model, args, kwargs)
        site = checks.diffusion_site(trace)
        names = checks.observed_sites(trace)
        checks.check_exported(trace)
        prior = sites.unwrap(trace[site]["fn"])
        observed = {name: trace[name] for name in names}
        checks.check_observed_shapes(observed)
        count = sum(jnp.size(s["value"]) for s in observed.values() if not sites.is_factor(s))
        exact = noise_free.is_noise_free(observed)
        problem = Problem(prior, arrays, model, static, site, names, count, False, exact)
        problem = dataclasses.replace(problem, fingerprint=fingerprint(problem))
        checks.check_likelihood(problem)
        problem = dataclasses.replace(problem, linear=_is_linear(problem, observed, linear))
        if exact:
            noise_free.check_linear(problem)
        if problem.linear:
            checks.check_plausible(problem)
        if exact:
            noise_free.check_consistent(problem)
        return problem


def _run(model: Callable, args: tuple, kwargs: dict) -> dict[str, sites.Site]:
    try:
        return sites.trace(model, args, kwargs)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the model fails on these arguments ({first_line(error)}); run it under"
            " numpyro.handlers.seed to see where"
        ) from error


def _is_linear(problem: Problem, observed: dict[str, sites.Site], declared: bool | None) -> bool:
    others = [
        name for name, site in observed.items()
        if not (sites.is_gaussian(site) or sites.is_exact(site))
    ]  # fmt: skip
    if declared and others:
        raise InputError(
            f"linear=True, but sites {others} are not Normal or MultivariateNormal; drop"
            " linear=True"
        )
    if declared is None:
        return not others and is_linear_gaussian(problem)
    return declared
