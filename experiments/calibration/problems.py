"""What samplers are calibrated on; another problem is one function more, and its name below."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from smcdiff import priors, proposals


class Method(NamedTuple):
    """A sampler: its proposal, whether it weighs, and how many draws are ranked, if not as many."""

    proposal: proposals.Proposal
    weighted: bool = True
    draws: int | None = None


class Problem(NamedTuple):
    """A declared model, and the samplers that serve it by name."""

    title: str
    model: Callable
    methods: dict[str, Method]


PRIOR = priors.GaussianMixture(
    jnp.array([0.5, 0.3, 0.2]), jnp.array([[-2.0, 0.0], [2.0, 1.0], [0.0, 3.0]]), 0.3
)


def _heuristic(proposal: proposals.Proposal) -> Method:
    return Method(proposal, weighted=False)


def linear() -> Problem:
    """One of two entries, with noise: a mask, so that the heuristics of inpainting serve too.

    The modes lie far apart in the entry that is not seen, so that a sampler chooses one early.
    """
    prior = priors.GaussianMixture(
        jnp.array([0.5, 0.3, 0.2]), jnp.array([[-1.0, -4.0], [1.0, 4.0], [0.0, 1.0]]), 0.3
    )

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:1], 0.5).to_event(1), obs=y)

    return Problem(
        "One of two entries, noise 0.5",
        model,
        {
            "MomentMatched": Method(proposals.MomentMatched()),
            "Twisted": Method(proposals.Twisted()),
            "MCGDiff": Method(proposals.MCGDiff()),
            "DPS, unweighted": _heuristic(proposals.DPS()),
            "PiGDM, unweighted": _heuristic(proposals.PiGDM()),
            "Replacement, unweighted": _heuristic(proposals.Replacement()),
        },
    )


def magnitudes() -> Problem:
    """Phase retrieval: the signs are lost, so that the posterior has modes of its own."""
    matrix = jnp.array([[1.0, 0.4], [-0.5, 1.0]])

    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(jnp.abs(matrix @ x), 0.4).to_event(1), obs=y)

    return Problem(
        "The magnitudes |A x|, noise 0.4",
        model,
        {
            "Twisted": Method(proposals.Twisted()),
            "Bootstrap": Method(proposals.Bootstrap()),
            "Bootstrap, 19 draws": Method(proposals.Bootstrap(), draws=19),
            "Twisted, unweighted": _heuristic(proposals.Twisted()),
            "DPS, unweighted": _heuristic(proposals.DPS()),
        },
    )


def counts() -> Problem:
    """Poisson counts, whose rates are exponential in x."""
    matrix = jnp.array([[0.5, 0.2], [-0.3, 0.5], [0.1, -0.4]])

    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Poisson(2.0 * jnp.exp(matrix @ x)).to_event(1), obs=y)

    return Problem(
        "Three Poisson counts of rates 2 exp(A x)",
        model,
        {
            "Twisted": Method(proposals.Twisted()),
            "Bootstrap": Method(proposals.Bootstrap()),
            "Twisted, unweighted": _heuristic(proposals.Twisted()),
        },
    )


def noise() -> Problem:
    """A linear observation whose noise level is unknown too."""
    matrix = jnp.array([[1.0, 0.4], [-0.5, 1.0], [0.3, 0.8]])

    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        level = numpyro.sample("noise", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(matrix @ x, level).to_event(1), obs=y)

    return Problem(
        "Three sums of two entries, unknown noise",
        model,
        {
            "MomentMatched": Method(proposals.MomentMatched()),
            "Twisted": Method(proposals.Twisted()),
            "Twisted, unweighted": _heuristic(proposals.Twisted()),
        },
    )


PROBLEMS = {"linear": linear, "magnitudes": magnitudes, "counts": counts, "noise": noise}
