"""The twist of an earlier stage: what its sites let one expect of the observation.

The later sites are not there yet. With g a guess of them from the denoised mean m of the sites that
are, and w the standard deviation of the later ones about it, the log likelihood's entries l_i are
tempered as in `smcdiff.twists._tempering`, over points about both,

    x = m + spread_t^{1/2} z,    later = g + (w^2 + spread_t)^{1/2} z'.

It costs one evaluation of each later network, whose guess follows m.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.twists._tempering import tempered
from smcdiff.twists.base import Evaluation, MeanTwist

_NUM_POINTS, _NUM_PEAK_DRAWS = 32, 16


class _Points(NamedTuple):
    """Points about the sites of the stage and the later ones, in pairs of opposite signs.

    Attributes:
        own: (J, d).
        later: site -> (J, *event).
        peaks: (n,) of the entries, see `smcdiff.twists._tempering.Tempering`.
    """

    own: Float[Array, "j d"]
    later: dict[str, Float[Array, "j ..."]]
    peaks: Float[Array, " n"]


class Ahead(MeanTwist):
    """See the module."""

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> _Points:
        """The points, and the peaks of the entries."""
        typical = model.event(model.denoise(model.problem.prior.terminal().mean, model.first))
        guess, _ = model.problem.guess_later(typical)
        key_own, key_peaks, *keys = jax.random.split(key, 2 + len(guess))

        def points(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "j ..."]:
            half = jax.random.normal(key, (_NUM_POINTS // 2, *shape))
            return jnp.concatenate([half, -half])

        pairs = zip(keys, guess.items(), strict=True)
        later = {name: points(key, value.shape) for key, (name, value) in pairs}
        peaks = model.problem.observe(typical, guess).entrywise_peak(key_peaks, _NUM_PEAK_DRAWS)
        return _Points(points(key_own, (model.size,)), later, peaks)

    def adapt(self, model: ReverseModel, prepared: _Points) -> _Points:
        """The same points, for other values of the stages before."""
        return prepared

    def at(
        self,
        model: ReverseModel,
        prepared: _Points,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
    ) -> Evaluation:
        """The tempered log likelihood."""
        spread = model.problem.prior.spread(t)
        guess, scales = model.problem.guess_later(model.event(denoised))

        def entries(own: Float[Array, " d"], later: dict[str, Array]) -> Float[Array, " n"]:
            moved = {
                name: value + jnp.sqrt(scales[name] ** 2 + spread) * later[name]
                for name, value in guess.items()
            }
            at = model.event(denoised + jnp.sqrt(spread) * own)
            return model.problem.observe(at, moved).entrywise_log_twist

        around = jax.vmap(entries)(prepared.own, prepared.later)
        centre = model.problem.observe(model.event(denoised), guess).entrywise_log_twist
        value = tempered(around, centre, prepared.peaks)
        return Evaluation(value, denoised, jnp.asarray(jnp.inf, value.dtype))
