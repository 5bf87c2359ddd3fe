"""How well a twist tells the paths of a prior apart, without a filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key, PRNGKeyArray
from numpyro import handlers

from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.schedules import Grid, Level, UniformLogSNR
from smcdiff.errors import InputError
from smcdiff.priors import Prior
from smcdiff.problem import ReverseModel, read
from smcdiff.problem import _sites as sites
from smcdiff.problem._tracing import trace
from smcdiff.proposals import Proposal
from smcdiff.twists import Twist


class ContrastiveScore(NamedTuple):
    """What `contrastive_score` returns.

    Attributes:
        log_snr: (num_steps,) of the noisy levels, increasing.
        score: (num_steps,) in nat; 0 is a twist that knows nothing, log(num_paths) the most that
            can be seen, and the higher of two twists is the better one for weights.
        standard_error: (num_steps,) over the paths.
    """

    log_snr: Float[np.ndarray, " steps"]
    score: Float[np.ndarray, " steps"]
    standard_error: Float[np.ndarray, " steps"]


def contrastive_score(
    key: PRNGKeyArray,
    model: Callable,
    twist: Twist | Proposal,
    *args: Any,
    num_paths: int = 32,
    num_steps: int = 25,
    kernel: Kernel | None = None,
    grid: Grid | None = None,
    **kwargs: Any,
) -> ContrastiveScore:
    """How well a twist finds the path that an observation came from, by noise level.

    Paths x^i are drawn from the prior's own reverse chain, and an observation y_i from the end of
    each. The score of a level is the mean over i of

        log psi_t(y_i; x_t^i) - log mean_j psi_t(y_i; x_t^j),

    which is largest for psi_t = p(y given x_t), whatever factor of y it has (van den Oord et al.
    2018, eq. 4). Weights compare particles, so this is what they need of a twist; how well psi
    fits y itself misleads.

    Args:
        key: random key.
        model: a NumPyro model that draws its observations where it is given none.
        twist: a twist, or a proposal, whose log psi_t is judged.
        *args: arguments of the model, without the observations.
        num_paths: P; num_steps P (P + 1) network evaluations.
        num_steps: reverse steps.
        kernel: None takes the prior's own.
        grid: None is uniform in log-SNR.
        **kwargs: keyword arguments of the model, without the observations.

    Raises:
        InputError: fewer than two paths, a model without a site to be simulated, a proposal that
            weighs particles by a path, or a twist that does not fit the problem.
    """
    if num_paths < 2:
        raise InputError(f"contrastive_score: num_paths is {num_paths}; it must be at least 2")
    if isinstance(twist, Proposal) and twist.follows_path:
        raise InputError(
            f"contrastive_score: {type(twist).__name__} holds its particles to a path of y, or"
            " weighs them by their own, and has no twist that tells paths of the prior apart; judge"
            " it by its posterior (diagnostics.weights, diagnostics.stein)"
        )
    site, simulated, prior = _sites_of(model, args, kwargs)
    kernel = prior.default_kernel() if kernel is None else kernel
    kernel.check(prior)
    levels = (UniformLogSNR() if grid is None else grid)(prior.schedule, num_steps)
    key_paths, key_data, key_twist = jax.random.split(key, 3)
    paths = _paths(jax.random.split(key_paths, num_paths), prior, kernel, levels)

    def observed(data, *args, **kwargs):
        with handlers.condition(data=data):
            return model(*args, **kwargs)

    values = []
    for index, key_one in enumerate(jax.random.split(key_data, num_paths)):
        x = paths[index, -1].reshape(prior.event_shape)
        run = handlers.seed(handlers.substitute(model, {site: x}), key_one)
        drawn = handlers.trace(run).get_trace(*args, **kwargs)
        data = {name: drawn[name]["value"] for name in simulated}
        reverse = ReverseModel(read(observed, (data, *args), kwargs), kernel, levels)
        twist.check(reverse)
        values.append(np.asarray(_log_twists(key_twist, twist, reverse, paths[:, :-1])))
    table = jnp.asarray(np.stack(values), jnp.result_type(float))  # (y, x, levels)
    own = jnp.diagonal(table, axis1=0, axis2=1).T
    scores = np.asarray(own - logsumexp(table, axis=1) + np.log(num_paths))
    error = scores.std(axis=0, ddof=1) / num_paths**0.5
    return ContrastiveScore(np.asarray(levels.log_snr[:-1]), scores.mean(axis=0), error)


def _sites_of(model: Callable, args: tuple, kwargs: dict) -> tuple[str, list[str], Prior]:
    """The diffusion site, what is to be simulated, and the prior."""
    found = {n: s for n, s in trace(model, args, kwargs).items() if s["type"] == "sample"}
    diffusion = [name for name, s in found.items() if sites.is_diffusion(s["fn"])]
    simulated = [
        name for name, s in found.items() if name not in diffusion and not s["is_observed"]
    ]
    if len(diffusion) != 1 or not simulated:
        raise InputError(
            f"contrastive_score: the model has diffusion sites {diffusion} and draws {simulated};"
            " it needs one diffusion site, and at least one site that is drawn because it is given"
            " no data (leave the observations out of the call)"
        )
    return diffusion[0], simulated, sites.unwrap(found[diffusion[0]]["fn"])


@jax.jit
def _paths(
    keys: Key[Array, " paths"], prior: Prior, kernel: Kernel, levels: Level
) -> Float[Array, "paths levels d"]:
    """Paths of the reverse chain, x_T first."""
    return jax.lax.map(lambda key: prior.reverse_path(key, kernel, levels), keys, batch_size=16)


@jax.jit
def _log_twists(
    key: PRNGKeyArray,
    twist: Twist | Proposal,
    model: ReverseModel,
    paths: Float[Array, "paths steps d"],
) -> Float[Array, "paths steps"]:
    """Log psi_t of every path at every noisy level."""
    prepared = twist.prepare(key, model)

    def at_level(inputs):
        step, particles = inputs
        evaluate = jax.vmap(lambda x: twist.evaluate(model, prepared, x, model.level(step)))
        return evaluate(particles).log_twist

    steps = jnp.arange(paths.shape[1])
    return jax.lax.map(at_level, (steps, jnp.swapaxes(paths, 0, 1))).T
