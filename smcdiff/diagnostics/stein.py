"""How far draws are from the posterior of a model, told without a draw of the posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from smcdiff.diffusion.schedules import Level
from smcdiff.errors import NO_DERIVATIVE, InputError, first_line
from smcdiff.priors import Prior
from smcdiff.problem import Problem, read

_LEARNED = 5.0
"""Log-SNR of a network's score; see `default_log_snr`."""
_FEWEST = 5.0
"""Effective draws, 1 / sum w^2, below which neither U nor its error can be told."""
_PROBES = 64
"""Points of the prior at which a likelihood may differ that is the same at all draws."""
_REMEDY = "judge the draws by posterior.diagnose() and by chains that agree"


class SteinDiscrepancy(NamedTuple):
    """What `score_stein_discrepancy` returns.

    Attributes:
        score_ksd: the square root of ``v_statistic`` per dimension, sqrt(V / d): the figure of Qiu
            et al., of their kernel if ``scale`` is theirs.
        v_statistic: sum_ij w_i w_j u(x_i, x_j), the squared discrepancy of the draws themselves. It
            is positive for exact draws too, about the mean of u(x, x) over n.
        u_statistic: the same without i = j, an unbiased estimate of the squared discrepancy of what
            independent draws come from: 0 within its error for exact ones. NaN where the
            weights leave fewer than five effective draws.
        standard_error: of ``u_statistic``, as if the draws were independent.
        scale: c of the kernel, in data units; give it to the next call to compare two sets.
    """

    score_ksd: float
    v_statistic: float
    u_statistic: float
    standard_error: float
    scale: float


def score_stein_discrepancy(
    key: PRNGKeyArray,
    samples: Float[Array | np.ndarray, " n *event"],
    model: Callable,
    *args: Any,
    weights: Float[Array | np.ndarray, " n"] | None = None,
    log_snr: float | None = None,
    num_pairs: int = 1,
    scale: float | None = None,
    **kwargs: Any,
) -> SteinDiscrepancy:
    """The score-based kernel Stein discrepancy between draws and the posterior of a model.

    Draws are judged by the posterior's score s(x), that of the likelihood plus the prior's at a
    small noise. With k(x, y) = (c^2 + |x - y|^2)^(-1/2) the mean over independent x, y of

        u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k

    is 0 for draws of the posterior and positive for others (Liu, Lee and Jordan 2016; Qiu et al.
    2026, arXiv 2602.04189, algorithm 1 and appendix A). Four things to know of it
    (`experiments/stein`):

    - **A lost mode is not seen** where modes are apart, be it by 4 standard deviations: the score
      near the mode that is left does not know of the other.
    - Directions in which the posterior is sharp have large scores, and drown the others.
    - It compares sets of draws on one problem. Its size depends on the dimension, on the kernel's
      scale and on how sharp the posterior is.
    - Particles that share an ancestor or are copies are not independent: both statistics are then
      larger than of independent draws of the same law, and the standard error is too small. To
      judge the law of a sampler's draws, take one draw from each of many runs.

    Args:
        key: random key of the perturbations.
        samples: (n, *event), in the units of the prior. The work is O(n^2 d), the memory O(n^2).
        model: a NumPyro model whose log likelihood has a gradient: not one that observes without
            noise, nor one with jumps in x (rounded values, signs), of which the score says nothing.
        *args: arguments of the model, the observed values among them.
        weights: (n,), not negative, summing to 1; None is equal ones.
        log_snr: level of the prior's score, which is that of p_0 blurred by noise of variance
            exp(-log_snr). Too low, and the blur shows where the prior is narrower than it; too
            high, and the score of a network, which multiplies its error by exp(log_snr), says
            little. None: see `default_log_snr`.
        num_pairs: the prior's score is averaged over as many pairs of points, the draw plus and
            minus noise of that level, since a network has only seen noisy points (without, the own
            draws of the digits prior read 22 standard errors off). 0 takes the draw itself: half
            the cost, for a prior in closed form.
        scale: c of the kernel, in data units. None is the median distance of two draws. (Qiu et
            al. take 1 / (1 + median singular value of a linear observation).)
        **kwargs: keyword arguments of the model, the observed values among them.

    Returns:
        The discrepancy, computed in double precision from the scores.

    Raises:
        InputError: draws, weights or settings that cannot be used, unknown parameters, a model
            without a density or whose log likelihood has no gradient or one that is zero at all
            draws although it varies, or a score that is not finite.
    """
    problem = read(model, args, kwargs)
    problem.require_known("score_stein_discrepancy")
    values = _checked_samples(samples, problem)
    weighed = _checked_weights(weights, len(values))
    if num_pairs < 0:
        raise InputError(f"num_pairs is {num_pairs}; it must be at least 0")
    level = _level(problem.prior, log_snr)
    keys = jax.random.split(key, len(values))
    points = jnp.asarray(samples, jnp.result_type(float))
    _check_differentiable(problem)
    scores, slopes = _scores(keys, points, problem, level, num_pairs)
    _check_not_flat(problem, points, slopes)
    scores = np.asarray(scores, np.float64)
    lost = np.count_nonzero(~np.isfinite(scores).all(axis=1))
    if lost:
        raise InputError(
            f"the posterior's score is not finite at {lost} of {len(values)} draws: leave draws"
            " out that the model calls impossible, or choose another log_snr"
        )
    squares = _squared_distances(values)
    scale = _median_distance(squares) if scale is None else float(scale)
    if not (scale > 0.0 and math.isfinite(scale)):
        raise InputError(
            f"scale is {scale}; it must be positive and finite (None takes the median distance of"
            " two draws, which is 0 where most of them are copies)"
        )
    return _statistics(
        _stein_kernel(values, scores, squares, scale), weighed, values.shape[1], scale
    )


def default_log_snr(prior: Prior) -> float:
    """The level at which `score_stein_discrepancy` takes the prior's score.

    Of a denoiser in closed form it is the last noisy level of the schedule; with the schedule that
    `priors.Gaussian` and `GaussianMixture` choose, the blur is then 1/400 of the smallest variance.
    Of any other it is 5, a noise of 0.08 in data of unit size, as measured on 96 draws of the
    digits prior without data (`experiments/stein`): its own draws are 2 standard errors from zero,
    halves of two digits added 16, digits of nine tenths the size 67, and noise of 0.1 on a digit 4.
    At 2.4, the level of Qiu et al., the own draws are farther off than the noisy ones.

    Args:
        prior: of the model.
    """
    if prior.has_exact_denoiser:
        return float(prior.schedule.log_snr(prior.schedule.t_min))
    return _LEARNED


def _level(prior: Prior, log_snr: float | None) -> Level:
    """The noise level of the prior's score."""
    wanted = default_log_snr(prior) if log_snr is None else float(log_snr)
    level = prior.schedule.level(prior.schedule.time(jnp.asarray(wanted, jnp.result_type(float))))
    lowest = float(prior.schedule.noisiest.log_snr)
    if not (wanted > lowest and abs(float(level.log_snr) - wanted) < 0.1):
        raise InputError(
            f"log_snr is {wanted}, which the prior's schedule does not reach; take a finite one"
            f" above {lowest:.1f}"
        )
    return level


def _checked_samples(samples: Array | np.ndarray, problem: Problem) -> Float[np.ndarray, "n d"]:
    """The draws, flat, in double precision."""
    if problem.is_noise_free:
        raise InputError(
            f"site '{problem.site}' is observed without noise, so its posterior has no density and"
            " no score; observe it through Normal with a small scale"
        )
    shape, event = np.shape(samples), problem.event_shape
    if len(shape) != 1 + len(event) or shape[1:] != event or shape[0] < 2:
        raise InputError(
            f"samples has shape {shape}; it must be (n, *{event}) with n at least 2, chains"
            " flattened into n"
        )
    values = np.asarray(samples, np.float64).reshape(shape[0], -1)
    if not np.isfinite(values).all():
        raise InputError("samples has NaN or infinite entries; leave those draws out")
    return values


def _checked_weights(weights: Array | np.ndarray | None, count: int) -> Float[np.ndarray, " n"]:
    """The weights in double precision, summing to 1."""
    if weights is None:
        return np.full(count, 1.0 / count)
    values = np.asarray(weights, np.float64)
    if values.shape != (count,):
        raise InputError(f"weights has shape {values.shape}; there are {count} draws")
    total = values.sum()
    if not (np.all(values >= 0.0) and abs(total - 1.0) < 1e-3):
        raise InputError(
            f"weights sum to {total:.6g}, the smallest is {values.min():.3g}; give weights that"
            " are not negative and sum to 1, the exponential of normalised log weights"
        )
    return values / total


def _check_differentiable(problem: Problem) -> None:
    """Raises ``InputError`` where the log likelihood has no gradient; nothing is compiled."""
    x = jax.ShapeDtypeStruct(problem.event_shape, jnp.result_type(float))
    try:
        jax.eval_shape(jax.grad(problem.log_likelihood), x)
    except NO_DERIVATIVE as error:
        raise InputError(
            f"the model's log likelihood has no gradient ({first_line(error)}): give what JAX"
            f" cannot differentiate, a callback say, a jax.custom_jvp, or {_REMEDY}"
        ) from error


def _check_not_flat(
    problem: Problem, points: Float[Array, " n *event"], slopes: Float[Array, " n *event"]
) -> None:
    """Raises ``InputError`` where the gradients at all draws are zero, but the model is not flat.

    It is looked at elsewhere in the prior too: draws may all lie on one step.
    """
    if np.any(np.asarray(slopes)):
        return
    anywhere = jnp.concatenate([points, problem.prior.probe_points(_PROBES)])
    values = np.asarray(jax.lax.map(problem.log_likelihood, anywhere, batch_size=16))
    if np.any(values != values[0]):
        raise InputError(
            "the gradient of the model's log likelihood is zero at all draws, although it varies"
            f" with x: it jumps (rounding, signs), of which the score says nothing; {_REMEDY}"
        )


@partial(jax.jit, static_argnames="num_pairs")
def _scores(
    keys: Key[Array, " n"],
    samples: Float[Array, " n *event"],
    problem: Problem,
    level: Level,
    num_pairs: int,
) -> tuple[Float[Array, "n d"], Float[Array, " n *event"]]:
    """The posterior's score at each draw, flat, and the likelihood's part of it.

    The prior's is alpha times that of x_t, at x_t = alpha x + sigma z (Qiu et al., section 3.1).
    Noise in pairs of opposite signs cancels where the score is linear: on the digits prior one pair
    leaves a quarter of the standard error of the four independent points of the paper.
    """

    def one(inputs):
        key, x = inputs
        noise = jax.random.normal(key, (num_pairs, *x.shape), x.dtype)
        noise = jnp.concatenate([noise, -noise]) if num_pairs else jnp.zeros_like(x)[None]
        near = (level.alpha * x)[None] + level.sigma * noise
        scores = jax.vmap(lambda x: problem.prior.score(x, level.time))(near)
        slope = jax.grad(problem.log_likelihood)(x)
        return jnp.ravel(slope + level.alpha * jnp.mean(scores, 0)), slope

    return jax.lax.map(one, (keys, samples), batch_size=16)


def _squared_distances(values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """From the Gram matrix of centred draws, so that nothing of n x n x d is formed."""
    centred = values - values.mean(axis=0, keepdims=True)
    gram = centred @ centred.T
    own = np.diagonal(gram)
    squares = np.maximum(own[:, None] + own[None] - 2.0 * gram, 0.0)
    np.fill_diagonal(squares, 0.0)
    return squares


def _median_distance(squares: Float[np.ndarray, "n n"]) -> float:
    return float(np.sqrt(np.median(squares[np.triu_indices(len(squares), 1)])))


def _stein_kernel(
    values: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, "n d"],
    squares: Float[np.ndarray, "n n"],
    scale: float,
) -> Float[np.ndarray, "n n"]:
    """u(x_i, x_j) of the inverse multiquadric kernel."""
    inner = scores @ (values - values.mean(axis=0, keepdims=True)).T
    own = np.diagonal(inner)
    along = own[:, None] + own[None] - inner - inner.T  # (s_i - s_j).(x_i - x_j)
    kernel = 1.0 / np.sqrt(scale**2 + squares)
    cubed = kernel**3
    trace = values.shape[1] * cubed - 3.0 * squares * cubed * kernel**2
    return (scores @ scores.T) * kernel + along * cubed + trace


def _statistics(
    table: Float[np.ndarray, "n n"], weights: Float[np.ndarray, " n"], size: int, scale: float
) -> SteinDiscrepancy:
    """V- and U-statistic, and the latter's error by the delta method.

    The variance of U has a part from its projection on single draws, sum_i 4 w_i^2 (r_i - U)^2 with
    r_i the weighted mean of row i, and one from pairs, 2 sum_ij (w_i w_j u_ij)^2, of which the
    first as it is estimated holds twice. For draws of the posterior there is no other.
    """
    v_statistic = float(weights @ table @ weights)
    score_ksd = math.sqrt(max(v_statistic, 0.0) / size)
    if float(weights @ weights) * _FEWEST > 1.0 + 1e-9:
        return SteinDiscrepancy(score_ksd, v_statistic, math.nan, math.nan, scale)
    apart = table.copy()
    np.fill_diagonal(apart, 0.0)
    u_statistic = float(weights @ apart @ weights) / (1.0 - float(weights @ weights))
    rows = apart @ weights / (1.0 - weights)
    pairs = 2.0 * float(weights**2 @ apart**2 @ weights**2)
    single = 4.0 * float(weights**2 @ (rows - u_statistic) ** 2)
    error = math.sqrt(max(single - pairs, pairs))
    return SteinDiscrepancy(score_ksd, v_statistic, u_statistic, error, scale)
