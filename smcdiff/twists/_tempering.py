"""A twist for any likelihood: tempered by how far it varies over what x_0 may still be.

The log likelihood is a sum of terms l_i: its entries, or itself where x has few dimensions and
fewer than it has entries, which then see the same of x, so that it varies far more than each of
them tells. With z_j the points, and averages over j,

    log psi_t(x_t) = sum_i beta_i (mean_j l_i(m + spread_t^{1/2} z_j) - peak_i) + peak_i
                     + log(beta_i) / 2,
    beta_i = (1 + 4/3 mean_j (l_i(m + spread_t^{1/2} z_j) - l_i(m))^2)^{-1/2}.

For a Gaussian entry that m fits, whose noise v times its own would be widened by, beta_i is
(1 + v^2)^{-1/2}, close to the 1 / (1 + v) of the widened twist; it is smaller where m does not fit,
and 1 at low noise. The average of the likelihoods themselves is the better guess in theory and a
worse one in practice, for with few points it is a row of bumps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.problem import ReverseModel

FEW_TERMS = 64
"""Up to here the gradients of a mean, or a climb to the largest value of each term, cost little."""
_FEW_DIMENSIONS = 8
"""With 16, and twice as many entries, tempering entry by entry is the better."""
_NUM_CLIMBS, _NUM_STARTS, _STRIDE = 200, 256, 0.05
_NUM_PEAK_DRAWS = 16


class _Reference(NamedTuple):
    """What peaks follow unknown parameters by.

    Attributes:
        typical: (d,) an x of the prior.
        above: (n,) by how much the peaks lie above each term's value there, were the centre of its
            distribution observed.
    """

    typical: Float[Array, " d"]
    above: Float[Array, " n"]


class Tempering(NamedTuple):
    """The points of a tempered twist; see the module.

    Attributes:
        points: (J, d), pairs of opposite signs.
        peaks: (n,) the largest value of each term: as beta_i differs from particle to particle, a
            log density is only tempered well if it is measured from its top. With a top that no x
            reaches, that of data that misfit the model, particles would be favoured for how steep
            the likelihood is where they are.
        reference: where there are unknown parameters, what the peaks follow them by.
    """

    points: Float[Array, "j d"]
    peaks: Float[Array, " n"]
    reference: _Reference | None

    @classmethod
    def of(cls, key: PRNGKeyArray, model: ReverseModel, num_points: int) -> Tempering:
        """The points, and the peaks of the terms.

        Args:
            key: random key.
            model: the reverse model.
            num_points: J, even.
        """
        problem = model.problem
        key_points, key_peaks = jax.random.split(key)
        half = jax.random.normal(key_points, (num_points // 2, model.size))
        points, terms = jnp.concatenate([half, -half]), _terms(model)
        typical = model.denoise(problem.prior.terminal().mean, model.first)
        if jax.eval_shape(terms, typical).shape[0] <= FEW_TERMS:
            peaks = _largest(terms, problem.prior.probe_points(_NUM_STARTS))
        else:
            observation = problem.observe(model.event(typical))
            peaks = observation.entrywise_peak(key_peaks, _NUM_PEAK_DRAWS)
        if not problem.varies:
            return cls(points, peaks, None)
        return cls(points, peaks, _Reference(typical, peaks - _centres(model, typical)))

    def adapt(self, model: ReverseModel) -> Tempering:
        """With peaks for another value of the unknown parameters.

        A climb for each particle would cost too much: what the value changes by that each term has
        where the centre of its distribution is observed is taken for the change of its peak.
        """
        assert self.reference is not None
        typical, above = self.reference
        return self._replace(peaks=_centres(model, typical) + above)

    def log_twist(
        self, model: ReverseModel, denoised: Float[Array, " d"], spread: Float[Array, ""]
    ) -> Float[Array, ""]:
        """Log psi_t, from the denoised mean and the variance of x_0 about it."""
        terms = _terms(model)
        around = jax.vmap(terms)(denoised[None] + jnp.sqrt(spread) * self.points)
        return tempered(around, terms(denoised), self.peaks)


def tempered(
    around: Float[Array, "j n"], centre: Float[Array, " n"], peaks: Float[Array, " n"]
) -> Float[Array, ""]:
    """Log psi_t of the module.

    Args:
        around: the terms at the points about m.
        centre: at m.
        peaks: the largest value of each.
    """
    # Held fixed in gradients: there the log likelihood is followed, not its variation.
    changes = jax.lax.stop_gradient(around - centre[None])
    power = 1.0 / jnp.sqrt(1.0 + 4.0 / 3.0 * jnp.mean(changes**2, axis=0))
    return jnp.sum(power * (jnp.mean(around, axis=0) - peaks) + peaks + 0.5 * jnp.log(power))


def as_a_whole(model: ReverseModel, num_entries: int) -> bool:
    """Whether a log likelihood is one term, and not a term per entry."""
    return model.size <= _FEW_DIMENSIONS and num_entries > model.size


def _terms(model: ReverseModel) -> jax.stages.Wrapped:
    """The terms of the log likelihood that are tempered on their own; see the module."""

    @jax.jit
    def terms(x):
        entries = model.problem.observe(model.event(x)).entrywise_log_twist
        return jnp.sum(entries, keepdims=True) if as_a_whole(model, entries.size) else entries

    return terms


def _centres(model: ReverseModel, x: Float[Array, " d"]) -> Float[Array, " n"]:
    """Each term at x, were the centre of its distribution observed."""
    values = model.problem.observe(model.event(x)).entrywise_centre
    return jnp.sum(values, keepdims=True) if as_a_whole(model, values.size) else values


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
