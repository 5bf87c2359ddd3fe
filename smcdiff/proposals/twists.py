"""Twists that guess p(y given x_t) from the denoised mean m(x_t) alone.

The plain guess is p(y given m(x_t)) (Chung et al. 2023; Wu et al. 2023): far too sure at high
noise, where x_0 may still lie anywhere about m. Here it is made as unsure as N(m, spread_t I) is
wide, at the cost of more evaluations of the likelihood and none of the network:

* a linear-Gaussian observation has its noise widened, ``sigma_y^2 + spread_t |a_i|^2`` for row a_i
  of the operator, which is the average of p(y_i given x_0) over N(m, spread_t I);
* a Gaussian one of a nonlinear mean, with few entries, has its mean linearised at m, unless x has
  few dimensions and fewer than there are entries;
* any other is tempered by how far its log likelihood varies over fixed points of N(m, spread_t I);
  see `Tempering`.

Any function of x_t makes consistent weights, as long as numerator and denominator are the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.schedules import Level
from smcdiff.problem.linearity import probe_points
from smcdiff.proposals.base import ReverseModel
from smcdiff.proposals.linear import row_norms

_FEW_TERMS = 64
"""Up to here the gradients of a mean, or a climb to the largest value of each term, cost little."""
_FEW_DIMENSIONS = 8
"""With 16, and twice as many entries, tempering entry by entry is the better."""
_NUM_CLIMBS, _NUM_STARTS, _STRIDE = 200, 256, 0.05
NUM_POINTS = 32
"""Of a tempered twist; with 8 the log evidence was off twice as far."""
_NUM_PEAK_DRAWS = 16


class Widening(NamedTuple):
    """Squared row norms of the whitened operator, and the likelihood's constant."""

    row_norms: Float[Array, " m"]
    log_normaliser: Float[Array, ""]


class LocalWidening(NamedTuple):
    """Marks a twist that is widened by the slope of a nonlinear mean where it is evaluated."""


class Tempering(NamedTuple):
    """The points of a tempered twist.

    The log likelihood is a sum of terms l_i: its entries, or itself where x has few dimensions and
    fewer than it has entries, which then see the same of x, so that it varies far more than each of
    them tells. With z_j the points, and averages over j,

        log psi_t(x_t) = sum_i beta_i (mean_j l_i(m + spread_t^{1/2} z_j) - peak_i) + peak_i
                         + log(beta_i) / 2,
        beta_i = (1 + 4/3 mean_j (l_i(m + spread_t^{1/2} z_j) - l_i(m))^2)^{-1/2}.

    For a Gaussian entry that m fits, whose noise v times its own would be widened by, beta_i is
    (1 + v^2)^{-1/2}, close to the 1 / (1 + v) of the widened twist; it is smaller where m does not
    fit, and 1 at low noise. The average of the likelihoods themselves is the better guess in theory
    and a worse one in practice, for with few points it is a row of bumps.

    Attributes:
        points: (J, d), pairs of opposite signs.
        peaks: (n,) the largest value of each term: as beta_i differs from particle to particle, a
            log density is only tempered well if it is measured from its top. With a top that no x
            reaches, that of data that misfit the model, particles would be favoured for how steep
            the likelihood is where they are.
    """

    points: Float[Array, "j d"]
    peaks: Float[Array, " n"]


Widened = Widening | LocalWidening | Tempering
"""What all particles share of a twist that is not plain."""


class Twist(NamedTuple):
    """Log psi_t, and how far it lies below its largest value: infinite where that is not known."""

    value: Float[Array, ""]
    room: Float[Array, ""] | float = jnp.inf


def widening(key: PRNGKeyArray, model: ReverseModel, num_points: int = NUM_POINTS) -> Widened:
    """What a twist that is not plain needs, computed once a run.

    Args:
        key: random key.
        model: the reverse model.
        num_points: J, even, of a tempered twist.
    """
    problem = model.problem
    if problem.linear:
        return Widening(row_norms(model), problem.log_normaliser())
    few = problem.num_observations <= _FEW_TERMS
    if problem.gaussian and few and not _as_a_whole(model, problem.num_observations):
        return LocalWidening()
    key_points, key_peaks = jax.random.split(key)
    half = jax.random.normal(key_points, (num_points // 2, model.size))
    terms = _terms(model)
    origin = jnp.zeros((model.size,))
    if terms.eval_shape(origin).shape[0] <= _FEW_TERMS:
        peaks = _largest(terms, probe_points(problem.prior, _NUM_STARTS))
    else:
        typical = model.denoise(problem.prior.terminal().mean, model.level(0))
        peaks = problem.entrywise_peak(key_peaks, model.event(typical), _NUM_PEAK_DRAWS)
    return Tempering(jnp.concatenate([half, -half]), peaks)


def _as_a_whole(model: ReverseModel, num_entries: int) -> bool:
    """Whether a log likelihood is one term, and not a term an entry."""
    return model.size <= _FEW_DIMENSIONS and num_entries > model.size


def _terms(model: ReverseModel) -> Callable[[Float[Array, " d"]], Float[Array, " n"]]:
    """The terms of the log likelihood that are tempered on their own; see `Tempering`."""

    @jax.jit
    def terms(x):
        entries = model.problem.entrywise_log_twist(model.event(x))
        return jnp.sum(entries, keepdims=True) if _as_a_whole(model, entries.size) else entries

    return terms


def _largest(terms: Callable, starts: Float[Array, " s *event"]) -> Float[Array, " n"]:
    """The largest value of each term over x: by Adam, from the best of some starts."""
    import optax  # a seventh of the package's import time, for likelihoods that are not Gaussian

    starts = starts.reshape(len(starts), -1)
    values = jax.lax.map(terms, starts, batch_size=32)
    values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
    optimiser = optax.adam(_STRIDE * jnp.mean(jnp.std(starts, axis=0)))

    def climb(index, x, value):
        slope = jax.value_and_grad(lambda x: -terms(x)[index])

        def step(state, _):
            x, memory, best = state
            loss, gradient = slope(x)
            update, memory = optimiser.update(gradient, memory)
            return (x + update, memory, jnp.where(-loss > best, -loss, best)), None

        (_, _, best), _ = jax.lax.scan(step, (x, optimiser.init(x), value), length=_NUM_CLIMBS)
        return best

    first, top = jnp.argmax(values, axis=0), jnp.max(values, axis=0)
    return jax.vmap(climb)(jnp.arange(len(top)), starts[first], top)


def log_twist(
    model: ReverseModel, wide: Widened | None, denoised: Float[Array, " d"], t: Level
) -> Twist:
    """Log psi_t given the denoised mean: made less sure as ``wide`` says, or plain where None."""
    if wide is None:
        return Twist(model.problem.log_twist(model.event(denoised)))
    spread = model.problem.prior.spread(t)
    if isinstance(wide, LocalWidening):
        return _log_local_average(model, denoised, spread)
    if isinstance(wide, Tempering):
        return Twist(_log_tempered(model, wide, denoised, spread))
    variances = 1.0 + spread * wide.row_norms
    room = 0.5 * jnp.sum(model.residual(denoised) ** 2 / variances)
    return Twist(wide.log_normaliser - 0.5 * jnp.sum(jnp.log(variances)) - room, room)


def _log_local_average(model: ReverseModel, denoised: Float[Array, " d"], spread) -> Twist:
    """The widened twist of a Gaussian observation whose mean is linearised at the denoised mean."""
    residual = model.problem.whitened(model.event(denoised))
    # Held fixed in gradients, as in Gauss-Newton: no second derivatives of the mean.
    slopes = jax.jacrev(lambda x: model.problem.whitened(model.event(x)))(denoised)
    variances = 1.0 + spread * jax.lax.stop_gradient(jnp.sum(slopes**2, axis=1))
    room = 0.5 * jnp.sum(residual**2 / variances)
    constant = model.problem.log_normaliser(model.event(denoised))
    return Twist(constant - 0.5 * jnp.sum(jnp.log(variances)) - room, room)


def _log_tempered(model: ReverseModel, wide: Tempering, denoised: Float[Array, " d"], spread):
    """The tempered twist; see `Tempering`."""
    terms = _terms(model)
    around = jax.vmap(terms)(denoised + jnp.sqrt(spread) * wide.points)
    # Held fixed in gradients: there the log likelihood is followed, not its variation.
    changes = jax.lax.stop_gradient(around - terms(denoised))
    power = 1.0 / jnp.sqrt(1.0 + 4.0 / 3.0 * jnp.mean(changes**2, axis=0))
    tempered = power * (jnp.mean(around, axis=0) - wide.peaks) + wide.peaks
    return jnp.sum(tempered + 0.5 * jnp.log(power))
