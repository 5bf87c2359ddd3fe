"""Weights in log space, the effective sample size, and an evidence that keeps its last digit."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smcdiff.smc.resampling import total


class Weights(NamedTuple):
    """The weights of one chain, and what follows from them; the fields are those of `FilterState`.

    Attributes:
        log_weights: (N,) normalised.
        ess: effective sample size.
        log_evidence: sum of the log mean weights of the steps.
        compensation: what rounding took from that sum.
        failed_step: first step that left no positive weight, or a weight that is not finite; -1.
    """

    log_weights: Float[Array, " n"]
    ess: Float[Array, ""]
    log_evidence: Float[Array, ""]
    compensation: Float[Array, ""]
    failed_step: Int[Array, ""]


def reweigh(
    t: Int[Array, ""], weights: Weights, log_potentials: Float[Array, " n"]
) -> tuple[Weights, Float[Array, ""]]:
    """Multiplies the weights of one chain by potentials and normalises them.

    Args:
        t: the step, to be named where it fails.
        weights: normalised.
        log_potentials: of the particles.

    Returns:
        The new weights, and the log of their sum before they were normalised: what the step adds
        to the log evidence, NaN in a chain that had failed before.
    """
    log_weights = weights.log_weights + log_potentials
    top = jnp.max(log_weights)  # NaN if any weight is
    scaled = jnp.exp(log_weights - top)
    mass = total(scaled)
    # blackjax.smc.ess has the same formula, but importing it takes longer than our whole package.
    ess = mass**2 / total(scaled**2)
    increment = jnp.where(top == -jnp.inf, -jnp.inf, top + jnp.log(mass))
    failed_before = weights.failed_step >= 0
    failed = failed_before | ~jnp.isfinite(increment)
    log_evidence, compensation = _add(weights.log_evidence, weights.compensation, increment)
    new = Weights(
        log_weights=jnp.where(failed, jnp.nan, log_weights - increment),
        ess=jnp.where(failed, jnp.nan, ess),
        # A chain that failed keeps the evidence it failed with: zero, or NaN.
        log_evidence=jnp.where(failed_before, weights.log_evidence, log_evidence),
        compensation=jnp.where(failed, 0.0, compensation),
        failed_step=jnp.where(failed & ~failed_before, t, weights.failed_step),
    )
    return new, jnp.where(failed_before, jnp.nan, increment)


def _add(
    sum_: Float[Array, ""], compensation: Float[Array, ""], term: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Neumaier's compensated addition: the sum is ``sum_ + compensation``."""
    new = sum_ + term
    swap = jnp.abs(term) > jnp.abs(sum_)
    large, small = jnp.where(swap, term, sum_), jnp.where(swap, sum_, term)
    return new, compensation + ((large - new) + small)
