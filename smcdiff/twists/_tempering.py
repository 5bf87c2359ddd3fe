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

Where the noise is unknown, psi_t must not grow without end as it goes to zero, or every particle
would end there: it would of the whole log likelihood, were its peak that of data without misfit,
and of entries with heavy tails, whose beta_i does not go to zero with the noise. See `_Tops` and
`tempered`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
_NUM_PEAK_DRAWS, _NUM_TOPS = 16, 8


class _Entrywise(NamedTuple):
    """How the peaks of entries follow unknown parameters.

    Attributes:
        typical: (d,) an x of the prior.
        above: (n,) by how much the peaks lie above each term's value there, were the centre of its
            distribution observed.
    """

    typical: Float[Array, " d"]
    above: Float[Array, " n"]


class _Tops(NamedTuple):
    """How the peak of the whole log likelihood does: it is the largest of those at a few x.

    With more entries than x has dimensions no x explains all of them, and how far the best one
    misses decides how small a noise may be: p(theta) psi_t would have no end at zero noise without.

    Attributes:
        x: (k, d) where the log likelihood is largest, each at another value of the parameters.
    """

    x: Float[Array, "k d"]


class Tempering(NamedTuple):
    """The points of a tempered twist; see the module.

    Attributes:
        points: (J, d), pairs of opposite signs.
        peaks: (n,) the largest value of each term: as beta_i differs from particle to particle, a
            log density is only tempered well if it is measured from its top. With a top that no x
            reaches, that of data that misfit the model, particles would be favoured for how steep
            the likelihood is where they are.
        following: where there are unknown parameters, what the peaks follow them by.
    """

    points: Float[Array, "j d"]
    peaks: Float[Array, " n"]
    following: _Entrywise | _Tops | None

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
        if problem.varies and _is_a_whole(model, typical):
            tops = _Tops(_tops(key_peaks, model))
            return cls(points, _highest(terms, tops), tops)
        if jax.eval_shape(terms, typical).shape[0] <= FEW_TERMS:
            peaks, _ = _largest(terms, problem.prior.probe_points(_NUM_STARTS))
        else:
            observation = problem.observe(model.event(typical))
            peaks = observation.entrywise_peak(key_peaks, _NUM_PEAK_DRAWS)
        if not problem.varies:
            return cls(points, peaks, None)
        centres = problem.observe(model.event(typical)).entrywise_centre
        return cls(points, peaks, _Entrywise(typical, peaks - centres))

    def adapt(self, model: ReverseModel) -> Tempering:
        """With peaks for another value of the unknown parameters.

        A climb for each particle would cost too much. What the value changes by that an entry has
        where the centre of its distribution is observed is taken for the change of its peak.
        """
        if isinstance(self.following, _Tops):
            return self._replace(peaks=_highest(_terms(model), self.following))
        assert self.following is not None
        typical, above = self.following
        centres = model.problem.observe(model.event(typical)).entrywise_centre
        return self._replace(peaks=centres + above)

    def log_twist(
        self, model: ReverseModel, denoised: Float[Array, " d"], spread: Float[Array, ""]
    ) -> Float[Array, ""]:
        """Log psi_t, from the denoised mean and the variance of x_0 about it."""
        terms, about = _terms(model), denoised[None] + jnp.sqrt(spread) * self.points
        around, peaks = jax.vmap(terms)(about), self.peaks
        if not isinstance(self.following, _Entrywise):
            return tempered(around, terms(denoised), peaks)
        observed = partial(_centres, model)
        widths = jax.lax.stop_gradient(
            jax.tree.map(partial(jnp.var, axis=0), jax.vmap(observed)(about))
        )
        widened = model.problem.observe(model.event(denoised)).entrywise_widened(peaks, widths)
        return tempered(around, terms(denoised), peaks, widened)


def tempered(
    around: Float[Array, "j n"],
    centre: Float[Array, " n"],
    peaks: Float[Array, " n"],
    widened: Float[Array, " n"] | float = jnp.inf,
) -> Float[Array, ""]:
    """Log psi_t of the module.

    Args:
        around: the terms at the points about m.
        centre: at m.
        peaks: the largest value of each.
        widened: what the largest value of psi_t is at most, term by term. With heavy tails beta_i
            does not go to zero with the noise: peak_i + log(beta_i) / 2 would have no end there.
    """
    # Held fixed in gradients: there the log likelihood is followed, not its variation.
    changes = jax.lax.stop_gradient(around - centre[None])
    power = 1.0 / jnp.sqrt(1.0 + 4.0 / 3.0 * jnp.mean(changes**2, axis=0))
    top = jnp.minimum(peaks + 0.5 * jnp.log(power), widened)
    return jnp.sum(power * (jnp.mean(around, axis=0) - peaks) + top)


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


def _is_a_whole(model: ReverseModel, x: Float[Array, " d"]) -> bool:
    """`as_a_whole`, of the entries that there are."""
    entries = jax.eval_shape(lambda x: model.problem.observe(x).entrywise_log_twist, model.event(x))
    return as_a_whole(model, entries.size)


def _centres(model: ReverseModel, x: Float[Array, " d"]) -> dict[str, Array]:
    """Observed site -> the centres of its entries' distributions at x."""
    return model.problem.observe(model.event(x)).centres


def _highest(terms: Callable, tops: _Tops) -> Float[Array, " n"]:
    """The largest value of each term among those at a few x."""
    return jnp.max(jax.vmap(terms)(tops.x), axis=0)


def _tops(key: PRNGKeyArray, model: ReverseModel) -> Float[Array, "k d"]:
    """Where the log likelihood is largest, at draws of the parameters."""
    starts = model.problem.prior.probe_points(_NUM_STARTS)

    def top(own: ReverseModel) -> Float[Array, " d"]:
        return _largest(_terms(own), starts)[1][0]

    if model.problem.parameters is None:  # it is other sites that are given
        return top(model)[None]
    draws = jax.vmap(model.problem.draw_parameters)(jax.random.split(key, _NUM_TOPS))
    return jax.lax.map(lambda parameters: top(model.given(parameters)), draws)


def _largest(
    terms: Callable, starts: Float[Array, " s *event"]
) -> tuple[Float[Array, " n"], Float[Array, "n d"]]:
    """The largest value of each term over x, and where: by Adam, from the best of some starts."""
    import optax  # a seventh of the package's import time, for likelihoods that are not Gaussian

    starts = starts.reshape(len(starts), -1)
    values = jax.lax.map(terms, starts, batch_size=32)
    values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
    optimiser = optax.adam(_STRIDE * jnp.mean(jnp.std(starts, axis=0)))

    def climb(index, x, value):
        slope = jax.value_and_grad(lambda x: -terms(x)[index])

        def step(state, _):
            x, memory, best, where = state
            loss, gradient = slope(x)
            update, memory = optimiser.update(gradient, memory)
            where = jnp.where(-loss > best, x, where)
            return (x + update, memory, jnp.where(-loss > best, -loss, best), where), None

        start = (x, optimiser.init(x), value, x)
        (_, _, best, where), _ = jax.lax.scan(step, start, length=_NUM_CLIMBS)
        return best, where

    first, top = jnp.argmax(values, axis=0), jnp.max(values, axis=0)
    return jax.vmap(climb)(jnp.arange(len(top)), starts[first], top)
