"""Brute force: evidence and posterior by importance sampling from the prior."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from likelihood_kinds import Problem
from numpyro import handlers

_CHUNK = 500_000


class Truth(NamedTuple):
    """What importance sampling says.

    Attributes:
        log_evidence: log Z.
        error: its standard error.
        mean: (d,) of the posterior.
        std: (d,) of the posterior.
        second_mode: the posterior probability of the prior's second component.
    """

    log_evidence: float
    error: float
    mean: np.ndarray
    std: np.ndarray
    second_mode: float


def log_likelihood(model, data, x: jax.Array) -> jax.Array:
    """Of one x, by NumPyro alone."""
    trace = handlers.trace(handlers.substitute(model, {"x": x})).get_trace(data)
    observed = [s for s in trace.values() if s["type"] == "sample" and s["is_observed"]]
    return sum((jnp.sum(s["fn"].log_prob(s["value"])) for s in observed), jnp.zeros(()))


def importance_sampling(problem: Problem, num_draws: int) -> Truth:
    """The truth, from ``num_draws`` draws of the prior."""
    values = jax.jit(jax.vmap(lambda x: log_likelihood(problem.model, problem.data, x)))
    random, found = np.random.default_rng(1), []
    for start in range(0, num_draws, _CHUNK):
        x, second = problem.prior.draw(random, min(_CHUNK, num_draws - start))
        found.append((np.asarray(values(x), np.float64), x, second))
    terms, x, second = (np.concatenate(parts) for parts in zip(*found, strict=True))
    weights = np.exp(terms - terms.max())
    error = weights.std() / weights.mean() / np.sqrt(num_draws)
    log_evidence = terms.max() + np.log(weights.mean())
    weights /= weights.sum()
    mean = weights @ x
    return Truth(
        float(log_evidence), float(error), mean,
        np.sqrt(weights @ (x - mean) ** 2), float(weights @ second),
    )  # fmt: skip
