"""`read`: from a NumPyro model and its arguments to a `Problem`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from smcdiff.errors import InputError, first_line
from smcdiff.operators import LinearOperator
from smcdiff.operators._declared import check_operator
from smcdiff.operators._recording import Call, record_calls
from smcdiff.problem import _arguments as arguments
from smcdiff.problem import _data_checks as data_checks
from smcdiff.problem import _exact_observation as exact_observation
from smcdiff.problem import _model_checks as model_checks
from smcdiff.problem import _parameter_checks as parameter_checks
from smcdiff.problem import _sites as sites
from smcdiff.problem._layout import Layout, Place, lay_out
from smcdiff.problem._linearity import check_declared, is_linear, quadratic_rank
from smcdiff.problem._named_axes import named_axes
from smcdiff.problem._observation import ExactObservation, GaussianObservation, observation_of
from smcdiff.problem._parameters import Parameters
from smcdiff.problem._program_key import ProgramKey, program_key
from smcdiff.problem._recognition import candidates, moves_alike, precision_roots, recognise
from smcdiff.problem._sites import Site
from smcdiff.problem._stages import Held, in_order, laid_out
from smcdiff.problem._tracing import trace
from smcdiff.problem.problem import Problem


def read(
    model: Callable, args: tuple = (), kwargs: dict | None = None, *, linear: bool | None = None
) -> Problem:
    """Reads a NumPyro model. Eager and cheap: no prior is sampled.

    Args:
        model: the model; one or several of its sample sites have a `smcdiff.priors.Prior`.
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
    if arguments.has_lists(args, kwargs):
        args, kwargs = _with_arrays(model, args, kwargs)
    arrays, fixed = arguments.split(args, kwargs)
    found, calls = _run(model, *fixed.rebuild(arrays))
    diffusion = model_checks.diffusion_sites(found)
    stages = in_order(diffusion, lambda values: trace(model, *fixed.rebuild(arrays), values))
    prior, layout = lay_out({name: diffusion[name] for name in stages[0]})
    unknown = model_checks.parameter_sites(found)
    if len(stages) > 1:
        model_checks.check_stages(stages, unknown, found)
    observed = {name: found[name] for name in model_checks.observed_sites(found)}
    model_checks.check_exported(found)
    data_checks.check_shapes(observed)
    data_checks.check_kinds(observed)
    arrays = _with_floats(arrays, observed)
    count = sum(jnp.size(s["value"]) for s in observed.values() if not sites.is_factor(s))
    kind = type(observation_of(observed))
    parameters = Parameters.of(found, unknown) if unknown else None
    problem = Problem(
        prior, arrays, None, parameters, model, fixed, layout, tuple(observed), count, kind,
        named_axes=named_axes(found),
    )  # fmt: skip
    if len(stages) > 1:
        problem = _last_stage(problem, stages, diffusion)
    problem = dataclasses.replace(problem, key=_key(problem))
    if parameters is not None:
        parameter_checks.check(problem)
    data_checks.check_likelihood(problem)
    if not issubclass(kind, GaussianObservation):
        return _without_means(problem, linear)
    problem = dataclasses.replace(problem, is_linear=_is_linear(problem, linear))
    if problem.is_noise_free:
        exact_observation.check_linear(problem)
    if problem.is_linear:
        if not problem.varies:  # a wide prior of what it varies with puts anything within reach
            data_checks.check_plausible(problem)
        problem = _with_structure(problem, calls, found)
    if problem.is_noise_free:
        exact_observation.check_consistent(problem)
    return problem


def _with_arrays(model: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The arguments, with arrays in place of lists that an observed site takes as they are."""
    found, _ = _run(model, args, kwargs)
    data = [s["value"] for s in found.values() if s["type"] == "sample" and s["is_observed"]]
    return arguments.with_arrays(args, kwargs, data)


def _last_stage(problem: Problem, stages: list[list[str]], diffusion: dict[str, Site]) -> Problem:
    """The problem of the last stage, with those before it.

    Args:
        problem: of the first stage.
        stages: names of the sites of each.
        diffusion: the diffusion sites.
    """
    values, before, earlier = {}, [], list(stages[0])
    problem = dataclasses.replace(problem, has_later=True)
    for (name,) in stages[1:]:
        # Where the sites of the stages before may lie: at zero, scales or means may vanish.
        values |= problem.layout.split(problem.prior.probe_points(1)[0])
        before.append(problem)
        held_layout = laid_out(earlier, diffusion)
        shape = jnp.shape(diffusion[name]["value"])
        problem = dataclasses.replace(
            problem,
            prior=sites.unwrap(diffusion[name]["fn"]),
            layout=Layout(((name, Place(shape, 0)),), False),
            held=Held(held_layout.join(values), held_layout),
        )
        earlier.append(name)
    return dataclasses.replace(problem, before=tuple(before), has_later=False)


def _with_structure(problem: Problem, calls: list[Call], found: dict[str, Site]) -> Problem:
    """A linear problem with what is known of its operator and its noise, whatever it varies with.

    Args:
        problem: the problem.
        calls: of operators, by its model.
        found: the sites of that run.
    """
    x = found[problem.layout.names[0]]["value"]
    # Of several sites together no operator of the package is known.
    operators = [] if problem.layout.joins_sites else candidates(calls, x)
    recognised, equal = recognise(problem, operators), _has_equal_noise(problem)
    if problem.varies:
        other = _elsewhere(problem)
        recognised = recognised if moves_alike(problem, other) else None
        equal = equal and _has_equal_noise(other)
    return dataclasses.replace(problem, recognised=recognised, equal_noise=equal)


def _elsewhere(problem: Problem) -> Problem:
    """The same at other values of what it varies with."""
    if problem.held is None:
        return problem.at(problem.draw_parameters(jax.random.key(1)))
    return problem.holding(problem.held.values + 1.0)


def _run(model: Callable, args: tuple, kwargs: dict) -> tuple[dict[str, Site], list[Call]]:
    """The sites of a run of the model at zeros, and the calls of operators."""
    try:
        with record_calls() as calls:
            found = trace(model, args, kwargs)
        for call in calls:
            check_operator(cast(LinearOperator, call.operator))
    except InputError:
        raise
    except Exception as error:  # a user's model may raise anything
        raise InputError(
            f"the model fails on these arguments ({first_line(error)}); run it under"
            " numpyro.handlers.seed to see where"
        ) from error
    return found, calls


def _with_floats(arrays: tuple[Array, ...], observed: dict[str, Site]) -> tuple[Array, ...]:
    """The model's array arguments; whole numbers that are data of a continuous site as floats.

    They mean the same, and another type would be another program.
    """
    data = [
        site["value"] for site in observed.values()
        if not sites.is_factor(site) and not site["fn"].is_discrete
    ]  # fmt: skip

    def converted(array: Array) -> Array:
        whole = jnp.issubdtype(array.dtype, jnp.integer) and any(v is array for v in data)
        # On the host, where a conversion is no program.
        return jnp.asarray(np.asarray(array), jnp.result_type(float)) if whole else array

    return tuple(converted(array) for array in arrays)


def _key(problem: Problem) -> tuple[ProgramKey, ...]:
    """The keys of what the model reads besides its arguments, and a plain denoiser."""
    x = jax.ShapeDtypeStruct(problem.event_shape, jnp.result_type(float))
    time = jax.ShapeDtypeStruct((), x.dtype)

    def likelihood(problem, x):
        return problem.observe(x).pointwise

    def gradient(problem, x):
        return jax.grad(lambda x: problem.log_likelihood(x))(x)

    def denoiser(prior, x, t):
        return prior.denoise(x, t)

    keys = [program_key(likelihood, problem, x)]
    of_gradient = program_key(gradient, problem, x)
    if of_gradient.is_traced:  # a callback, say, has no derivative
        keys.append(of_gradient)
    for stage in (*problem.before, problem):
        if not stage.prior.is_self_contained:
            x = jax.ShapeDtypeStruct(stage.event_shape, time.dtype)
            keys.append(program_key(denoiser, stage.prior, x, time))
    return tuple(keys)


def _without_means(problem: Problem, declared: bool | None) -> Problem:
    """A problem with sites that are neither Gaussian nor exact; the log likelihood may still be."""
    # The rank of a quadratic log likelihood may depend on what the problem varies with.
    looked_for = declared is not False and not problem.varies
    rank = quadratic_rank(problem) if looked_for else None
    if declared and rank is None:
        observed = problem.observe().sites.items()
        others = [n for n, s in observed if not (sites.is_gaussian(s) or sites.is_exact(s))]
        raise InputError(
            f"linear=True, but sites {others} are not Normal or MultivariateNormal, and the log"
            " likelihood is not found to be quadratic; drop linear=True"
        )
    if rank is None:
        return problem
    return dataclasses.replace(problem, is_linear=True, quadratic_rank=rank, num_observations=rank)


def _is_linear(problem: Problem, declared: bool | None) -> bool:
    if declared is None:
        return is_linear(problem)
    if declared:
        check_declared(problem)
    return declared


def _has_equal_noise(problem: Problem) -> bool:
    """Whether all entries of a linear observation have the same noise, and none is masked."""
    roots = precision_roots(problem)
    if any(root is None for root in roots):
        return False
    values = np.concatenate([np.asarray(root) for root in roots])
    if issubclass(problem.kind, ExactObservation):
        return bool(np.all(values == 1.0))
    return bool(np.all(values == values[0]) and values[0] > 0.0)
