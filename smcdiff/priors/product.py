"""Products of independent priors: what several diffusion sites, or a plate of them, are together.

At one log-SNR all schedules are the same but for a factor of x: with x = alpha x_0 + sigma eps, and
another schedule's (a, s) of the same ratio, (a / alpha) x is its state. So priors of different
schedules share one grid, and each denoiser sees its own time and its own scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._numbers import Scalar
from smcdiff.base._trees import are_equal
from smcdiff.base.module import static
from smcdiff.diffusion.denoising_error import DenoisingError
from smcdiff.diffusion.laws import Mixture
from smcdiff.diffusion.schedules import Level, OrnsteinUhlenbeck, Schedule
from smcdiff.errors import InputError
from smcdiff.priors.analytic import AnalyticPrior
from smcdiff.priors.base import Prior
from smcdiff.priors.gaussians import GaussianMixture

_MOST_COMPONENTS, _MOST_NUMBERS = 1024, 2**20
"""Of a mixture that a product of mixtures is multiplied out to, and of its covariances."""
_NOTHING_LEFT = 1e-3
"""Of a mixture's variance over the noise's where the product starts from one Gaussian."""


class Product(Prior):
    """Independent priors side by side, on one flat event.

    Several diffusion sites of a model, and a site in a plate, become one. The reverse kernel is
    DDPM's for all parts; `product` multiplies Gaussians and small mixtures out instead, whose
    kernel stays exact.

    Args:
        parts: priors.
        copies: how many independent events of each part there are; None is one each.
        schedule: noise schedule of the whole; None makes one that reaches as far as each part.

    Attributes:
        parts: as given.
        copies: as given.
    """

    parts: tuple[Prior, ...]
    copies: tuple[int, ...] = static()
    _is_on_own_schedule: bool = static()

    def __init__(
        self,
        parts: Sequence[Prior] | Any,  # whose error names the remedy
        copies: Sequence[int] | None = None,
        schedule: Schedule | None = None,
    ):
        """See the class."""
        if not parts or not all(isinstance(part, Prior) for part in parts):
            raise InputError(f"Product: the parts are {parts!r}; pass priors of smcdiff.priors")
        self.parts = tuple(parts)
        self.copies = (1,) * len(parts) if copies is None else tuple(copies)
        if len(self.copies) != len(parts) or any(count < 1 for count in self.copies):
            raise InputError(f"Product: copies are {self.copies} for {len(parts)} parts")
        size = sum(part.size * count for part, count in self._pairs)
        num_steps = max(part.num_steps for part in self.parts)
        schedule = _common_schedule(self.parts) if schedule is None else schedule
        # Traced schedules cannot be compared later.
        self._is_on_own_schedule = all(are_equal(schedule, part.schedule) for part in self.parts)
        super().__init__(schedule, (size,), num_steps=num_steps)

    @property
    def _pairs(self) -> zip[tuple[Prior, int]]:
        return zip(self.parts, self.copies, strict=True)

    @property
    def has_exact_denoiser(self) -> bool:
        """Whether those of all parts are."""
        return all(part.has_exact_denoiser for part in self.parts)

    @property
    def is_self_contained(self) -> bool:
        """Whether all parts are."""
        return all(part.is_self_contained for part in self.parts)

    @property
    def data_variance(self) -> Float[Array, ""]:
        """The largest of the parts'."""
        return jnp.max(jnp.stack([jnp.asarray(part.data_variance) for part in self.parts]))

    @property
    def denoising_error(self) -> DenoisingError | None:
        """Averaged over the coordinates, where all parts know theirs."""
        errors = [part.denoising_error for part in self.parts]
        known = [error for error in errors if error is not None]
        if len(known) < len(errors):
            return None
        log_snr = jnp.sort(jnp.concatenate([error.log_snr for error in known]))
        values = [jnp.exp(jnp.interp(log_snr, e.log_snr, jnp.log(e.values))) for e in known]
        return DenoisingError(log_snr, self._shares @ jnp.stack(values))

    @property
    def _shares(self) -> Float[Array, " parts"]:
        """Of the coordinates."""
        return jnp.asarray([part.size * count / self.size for part, count in self._pairs])

    def split(self, x: Float[Array, " d"]) -> list[Float[Array, "..."]]:
        """The events of each part, (copies, *event)."""
        ends = np.cumsum([part.size * count for part, count in self._pairs])[:-1]
        blocks = jnp.split(x, ends)
        pairs = zip(blocks, self._pairs, strict=True)
        return [block.reshape(count, *part.event_shape) for block, (part, count) in pairs]

    def posterior_mean(self, x: Float[Array, " d"], t: Scalar) -> Float[Array, " d"]:
        """The denoised means of all parts, each within its own threshold."""
        level = self.schedule.level(t)

        def one(part: Prior, event: Array) -> Array:
            if self._is_on_own_schedule:
                return part.denoise(event, t)
            if isinstance(part, AnalyticPrior):
                return part.mean_given(jnp.ravel(event), level).reshape(event.shape)
            own, factor = _own_time(part, level)
            return part.denoise(factor * event, own)

        pairs = zip(self.parts, self.split(x), strict=True)
        means = [jax.vmap(partial(one, part))(events) for part, events in pairs]
        return jnp.concatenate([jnp.ravel(mean) for mean in means])

    def terminal(self) -> Mixture:
        """The law of x_T: one Gaussian, since so little of the data is left there."""
        level = self.schedule.noisiest

        def one(part: Prior, count: int) -> tuple[Array, Array]:
            if isinstance(part, AnalyticPrior):
                mean = level.alpha * jnp.ravel(part.mean)
                variance = level.alpha**2 * jnp.ravel(part.variance) + level.sigma**2
            else:
                own, factor = part.terminal(), level.sigma / part.schedule.noisiest.sigma
                mean = factor * own.mean
                variance = jnp.broadcast_to(factor**2 * own.mean_variance, mean.shape)
            return jnp.tile(mean, count), jnp.tile(variance, count)

        means, variances = zip(*(one(part, count) for part, count in self._pairs), strict=True)
        mean = jnp.concatenate(means)
        return Mixture(jnp.zeros((1,), mean.dtype), mean[None], jnp.concatenate(variances)[None])

    def spread(self, level: Level) -> Float[Array, ""]:
        """The largest of the parts'."""
        return jnp.max(jnp.stack([part.spread(level) for part in self.parts]))

    def average_spread(self, level: Level) -> Float[Array, ""]:
        """Averaged over the coordinates."""
        return self._shares @ jnp.stack([part.average_spread(level) for part in self.parts])

    @property
    def centre(self) -> Float[Array, " d"]:
        """Those of the parts."""
        return self._blocks(lambda part: part.centre)

    def widths(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Root mean square over the entries, each in standard deviations of its part."""
        pairs = zip(self.parts, self.split(x), strict=True)
        squares = [jnp.mean(jax.vmap(part.widths)(events) ** 2) for part, events in pairs]
        return jnp.sqrt(self._shares @ jnp.stack(squares))

    @partial(jax.jit, static_argnames="count")
    def probe_points(self, count: int) -> Float[Array, "count d"]:
        """Random points at the location and scale of each part."""
        return self._points(count, lambda part: part.spread(part.schedule.noisiest))

    @partial(jax.jit, static_argnames="count")
    def typical_points(self, count: int) -> Float[Array, "count d"]:
        """Random points as far from the centre as the data of each part."""
        return self._points(count, lambda part: part.average_spread(part.schedule.noisiest))

    def _points(self, count: int, variance) -> Float[Array, "count d"]:
        """Apart for all copies, as the points of the parts themselves would not be."""
        noise = jax.random.normal(jax.random.key(1), (count, self.size))
        scales = self._blocks(lambda part: jnp.full(part.event_shape, jnp.sqrt(variance(part))))
        return self.centre[None] + scales[None] * noise

    def _blocks(self, of) -> Float[Array, " d"]:
        """A value for every coordinate, from one event of each part."""
        return jnp.concatenate([jnp.tile(jnp.ravel(of(part)), n) for part, n in self._pairs])

    def rough_draws(self, key: PRNGKeyArray, count: int) -> Float[Array, "count d"]:
        """Those of the parts."""
        keys = jax.random.split(key, len(self.parts))
        pairs = zip(keys, self._pairs, strict=True)
        draws = [part.rough_draws(key, count * n).reshape(count, -1) for key, (part, n) in pairs]
        return jnp.concatenate(draws, axis=1)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of each part, by its own sampler."""
        keys = jax.random.split(key, len(self.parts))
        pairs = zip(keys, self._pairs, strict=True)
        draws = [
            part.sample(key, (*sample_shape, count)).reshape(*sample_shape, -1)
            for key, (part, count) in pairs
        ]
        return jnp.concatenate(draws, axis=-1)

    def log_prob(self, value: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """The sum of the parts' log densities, in nat."""
        batch, total, start = value.shape[:-1], jnp.zeros(value.shape[:-1]), 0
        for part, count in self._pairs:
            end = start + count * part.size
            events = value[..., start:end].reshape(*batch, count, *part.event_shape)
            total = total + jnp.sum(part.log_prob(events), axis=-1)
            start = end
        return total


def product(parts: Sequence[Prior], copies: Sequence[int] | None = None) -> Prior:
    """Independent priors side by side, on one flat event.

    Args:
        parts: priors.
        copies: how many independent events of each part there are; None is one each.

    Returns:
        Of Gaussians and mixtures with at most 1,024 components together a `GaussianMixture`, whose
        denoiser and reverse kernel are exact; else a `Product`.
    """
    made = Product(parts, copies)
    factors = [part for part, count in made._pairs for _ in range(count)]
    analytic = [part for part in factors if isinstance(part, AnalyticPrior)]
    if len(analytic) < len(factors):
        return made
    components = math.prod(len(part.means) for part in analytic)
    is_dense = any(part.components.basis is not None for part in analytic)
    numbers = components * (made.size**2 if is_dense else made.size)
    if components > _MOST_COMPONENTS or numbers > _MOST_NUMBERS:
        return made
    return _multiplied_out(analytic, is_dense)


def _multiplied_out(factors: Sequence[AnalyticPrior], is_dense: bool) -> GaussianMixture:
    """The mixture whose components are all combinations of the factors' components."""
    chosen = list(itertools.product(*(range(len(part.means)) for part in factors)))
    columns = [jnp.asarray(column) for column in zip(*chosen, strict=True)]
    pairs = list(zip(factors, columns, strict=True))
    log_weights = jnp.sum(jnp.stack([part.log_weights[k] for part, k in pairs]), axis=0)
    means = jnp.concatenate([part.means[k] for part, k in pairs], axis=1)
    if is_dense:
        blocks = [part.component_covariances()[k] for part, k in pairs]
        covariances = jax.vmap(lambda *own: jax.scipy.linalg.block_diag(*own))(*blocks)
    else:
        blocks = [jnp.broadcast_to(p.components.eigenvalues, p.means.shape)[k] for p, k in pairs]
        covariances = jnp.concatenate(blocks, axis=1)
    first = factors[0].schedule
    own = first if all(are_equal(first, part.schedule) for part in factors) else None
    return GaussianMixture(jnp.exp(log_weights), means, covariances, schedule=own)


def _common_schedule(parts: Sequence[Prior]) -> Schedule:
    """The schedule of all parts, or one that reaches as far as each of them in both directions."""
    first, *others = [part.schedule for part in parts]
    starts_alike = not any(isinstance(part, AnalyticPrior) for part in parts)
    if starts_alike and all(are_equal(first, other) for other in others):
        return first
    base = OrnsteinUhlenbeck()
    lowest = jnp.min(jnp.stack([_lowest_log_snr(part) for part in parts]))
    highest = jnp.max(jnp.stack([s.log_snr(s.t_min) for s in (first, *others)]))
    return OrnsteinUhlenbeck(t_min=base.time(highest), t_max=base.time(lowest))


def _lowest_log_snr(part: Prior) -> Float[Array, ""]:
    lowest = part.schedule.noisiest.log_snr
    if isinstance(part, AnalyticPrior):  # which may start where it is no Gaussian yet
        lowest = jnp.minimum(lowest, jnp.log(_NOTHING_LEFT / jnp.max(part.variance)))
    return lowest


def _own_time(part: Prior, level: Level) -> tuple[Scalar, Float[Array, ""]]:
    """The part's time at a level, and the factor of x there.

    A network is not asked beyond the levels that it knows: below its lowest log-SNR it sees the
    noise that it expects, above its highest the signal.
    """
    schedule = part.schedule
    time = jnp.clip(schedule.time(level.log_snr), schedule.t_min, schedule.t_max)
    own = schedule.level(time)
    return time, jnp.minimum(own.alpha / level.alpha, own.sigma / level.sigma)
