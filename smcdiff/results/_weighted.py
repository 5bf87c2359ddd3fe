"""Averages, quantiles, effective numbers and draws of weighted values.

Values are (particles, *event), with one weight per particle; the weights sum to 1. What holds for
averages of a particle filter (Del Moral 2004) holds for all of these as the particles grow in
number: the weights are part of the draw, and leaving them out is an error, not a shortcut.

References:
    H. P. Chan and T. L. Lai (2013), A general theory of particle filters in hidden Markov models
    and some applications, Ann. Stat. 41, 2877.
    A. Lee and N. Whiteley (2018), Variance estimation in the particle filter, Biometrika 105, 609.
    J. Berard, P. Del Moral and A. Doucet (2014), A lognormal central limit theorem for particle
    approximations of normalizing constants, Electron. J. Probab. 19, 94.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, Shaped

from smcdiff.errors import InputError
from smcdiff.smc.resampling import systematic

CHAINS_APART = 2.0
"""Nat, the standard deviation of log Z_hat: the better of two chains counts 17 times the other."""
FEW_CHAINS = 4
"""Fewer chains leave the error of their spread at its half and more."""


def log_mean_evidence(log_evidence: Float[np.ndarray, " c"]) -> float:
    """Log of the mean of the chains' evidence estimates: the pooled, unbiased one."""
    largest = np.max(log_evidence)
    return float(largest + np.log(np.mean(np.exp(log_evidence.astype(np.float64) - largest))))


def log_mean_evidence_se(
    log_evidence: Float[np.ndarray, " c"], own_errors: Float[np.ndarray, " c"]
) -> float:
    """Standard error of `log_mean_evidence`.

    From the spread of four chains or more, by the log-normal law of Z_hat (Berard, Del Moral and
    Doucet 2014): with variance v of log Z_hat, that of the log of the mean of C is
    log(1 + (exp(v) - 1) / C). For normal log Z_hat it is 0.92 to 1.11 times the true error on
    average, for 4 to 16 chains with a standard deviation up to 1 nat, and up to 1.25 times at 1.5.

    Args:
        log_evidence: of the chains.
        own_errors: standard error of each chain by itself, by which fewer chains are told.

    Returns:
        The error; NaN where the chains have a standard deviation above `CHAINS_APART`, or where
        fewer than four cannot tell their own.
    """
    chains = log_evidence.size
    if chains < FEW_CHAINS:
        shares = np.exp(log_evidence.astype(np.float64) - np.max(log_evidence))
        return float(np.sqrt(np.sum((shares * own_errors) ** 2)) / np.sum(shares))
    deviation = float(np.std(log_evidence.astype(np.float64), ddof=1))
    if not deviation <= CHAINS_APART:
        return float("nan")
    return float(np.sqrt(np.log1p(np.expm1(deviation**2) / chains)))


def _from_the_first(
    values: Shaped[np.ndarray, " n *event"],
) -> tuple[Float[np.ndarray, " 1 *event"], Float[np.ndarray, " n *event"]]:
    """Values as double precision from the first one on, so that equal ones leave no rounding."""
    origin = values[:1].astype(np.float64)
    return origin, values - origin


def _centred(
    values: Shaped[np.ndarray, " n *event"], weights: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n *event"]:
    """Values less their weighted mean."""
    _, shifted = _from_the_first(values)
    return shifted - np.tensordot(weights, shifted, 1)[None]


def mean(
    values: Shaped[np.ndarray, " n *event"], weights: Float[np.ndarray, " n"]
) -> Shaped[np.ndarray, "*event"]:
    """Weighted mean."""
    origin, shifted = _from_the_first(values)
    return np.asarray(origin[0] + np.tensordot(weights, shifted, 1))


def std(
    values: Shaped[np.ndarray, " n *event"], weights: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "*event"]:
    """Weighted standard deviation, without a correction for the number of particles."""
    return np.asarray(np.sqrt(np.tensordot(weights, _centred(values, weights) ** 2, 1)))


def quantiles(
    values: Shaped[np.ndarray, " n *event"],
    weights: Float[np.ndarray, " n"],
    levels: tuple[float, ...],
) -> Shaped[np.ndarray, " q *event"]:
    """Weighted quantiles: the smallest value with at least that much weight at or below it."""
    found = np.quantile(values, levels, axis=0, weights=weights, method="inverted_cdf")
    return np.asarray(found)


def effective_number(weights: Float[np.ndarray, " n"]) -> float:
    """Kish's effective number of draws, one over the sum of the squared weights."""
    return float(1.0 / np.sum(weights**2))


def effective_founders(weights: Float[np.ndarray, " n"], founders: Int[np.ndarray, " n"]) -> float:
    """The effective number of draws if all particles of one founder count as one."""
    return effective_number(np.bincount(founders, weights))


class Precision(NamedTuple):
    """How well weighted particles tell the mean and the spread of each entry.

    Attributes:
        mean_error: standard error of the weighted mean.
        std_error: standard error of the weighted standard deviation.
        draws: how many independent draws would tell the mean as well; NaN where all values are
            equal.
    """

    mean_error: Float[np.ndarray, "*event"]
    std_error: Float[np.ndarray, "*event"]
    draws: Float[np.ndarray, "*event"]


def precision(
    values: Shaped[np.ndarray, " n *event"],
    weights: Float[np.ndarray, " n"],
    founders: Int[np.ndarray, " n"],
) -> Precision:
    """How well weighted particles tell the mean and the spread of each entry.

    The squared error of a weighted mean m is estimated by ``sum_e (sum_{i: founder(i) = e} W_i (x_i
    - m))^2``: particles of one founder share their history, and so their error (Chan and Lai 2013;
    Lee and Whiteley 2018). Without resampling all founders are distinct, and it is the usual
    estimate of importance sampling. The standard deviation s is to first order a mean of ``((x_i -
    m)^2 - s^2) / (2 s)``, of which the same is taken. The draws are the posterior variance over the
    squared error of the mean.

    Measured against the spread of 100 runs on a Gaussian in three dimensions: the draws are good to
    about a fifth while most founders survive; with 6 to 9 effective founders 2 to 3 times too many,
    because a history common to all counts as nothing, where the number of effective particles was 4
    to 12 times too high.

    Args:
        values: (particles, *event).
        weights: (particles,), summing to 1.
        founders: (particles,) a number for each founder.
    """
    order = np.argsort(founders, kind="stable")
    starts = np.flatnonzero(np.diff(founders[order], prepend=-1))
    each = weights.reshape(-1, *[1] * (values.ndim - 1))

    def squared_error(deviations: np.ndarray) -> np.ndarray:
        sums = np.add.reduceat((each * deviations)[order], starts, axis=0)
        return np.asarray(np.sum(sums**2, axis=0))

    centred = _centred(values, weights)
    variance = np.asarray(np.tensordot(weights, centred**2, 1))
    of_mean, of_variance = squared_error(centred), squared_error(centred**2 - variance[None])
    of_std = np.divide(of_variance, 4.0 * variance, out=np.zeros_like(variance), where=variance > 0)
    draws = np.divide(variance, of_mean, out=np.full_like(variance, np.nan), where=of_mean > 0.0)
    return Precision(np.sqrt(of_mean), np.sqrt(of_std), draws)


def picked(
    key: PRNGKeyArray, weights: Float[np.ndarray, " n"], size: int | np.integer
) -> Int[np.ndarray, " size"]:
    """Indices of equally weighted draws, in random order.

    Args:
        key: random key.
        weights: non-negative.
        size: how many.

    Raises:
        InputError: size is no whole number of at least 1; it names the method that users call.
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise InputError(f"resample: n is {size}; it must be a whole number, at least 1")
    key_draw, key_order = jax.random.split(key)
    indices = systematic(key_draw, jnp.asarray(weights, jnp.result_type(float)), int(size))
    return np.asarray(jax.random.permutation(key_order, indices))
