"""The noise that training adds: the schedule, noisy batches, the loss, errors by noise level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.schedules import TIMESTEPS, Cosine, Schedule
from smcdiff.priors import DenoisingError, Prediction
from smcdiff.store._terminal import cosine_for
from smcdiff.training._statistics import Statistics
from smcdiff.training._weighting import Weighting, draw_times
from smcdiff.training.config import TrainConfig


class Noise(NamedTuple):
    """The noise levels of a training.

    Attributes:
        sampled: the schedule of what is learned: it ends where little of the data is left.
        trained: the levels that are drawn, a little beyond, so that no sampled one is at the
            border.
    """

    sampled: Cosine
    trained: Cosine

    @classmethod
    def of(cls, data: Statistics) -> Noise:
        """The levels that suit the data."""
        sampled, beyond = cosine_for(data.norm, data.variance), 0.004 / Cosine.t_min
        ends = beyond * sampled.t_min, 1.0 - beyond * (1.0 - sampled.t_max)
        return cls(sampled, Cosine(t_min=ends[0], t_max=ends[1]))


def noisy(
    key: PRNGKeyArray,
    clean: Float[Array, "b h w c"],
    schedule: Cosine,
    weighting: Weighting,
    prediction: Prediction,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"], Float[Array, " b"]]:
    """A batch with noise at stratified times, drawn by their weight.

    Returns:
        The noisy images, the noise, and the times.
    """
    key_time, key_noise = jax.random.split(key)
    batch = clean.shape[0]
    strata = (jnp.arange(batch) + jax.random.uniform(key_time)) / batch
    times = draw_times(strata, weighting, prediction, schedule)
    level = schedule.level(times[:, None, None, None])
    noise = jax.random.normal(key_noise, clean.shape)
    return level.alpha * clean + level.sigma * noise, noise, times


def denoising_loss(
    graph: Any, noise: Noise, config: TrainConfig
) -> Callable[..., Float[Array, ""]]:
    """What a denoiser is trained by, ``E |f(alpha x_0 + sigma eps, t, conditions) - target|^2``.

    Args:
        graph: of the network.
        noise: its levels.
        config: the target, and how levels are drawn.

    Returns:
        ``loss(params, key, clean, *conditions)``; the conditions are what the network takes after
        the image and the time.
    """
    prediction, weighting = config.target(), config.level_weighting()

    def loss(params, key, clean, *conditions):
        x, eps, times = noisy(key, clean, noise.trained, weighting, prediction)
        level = noise.trained.level(times[:, None, None, None])
        output = nnx.merge(graph, params)(x, TIMESTEPS * times, *conditions)
        return jnp.mean((output - prediction.target(clean, eps, level)) ** 2)

    return loss


def held_out_errors(
    outputs: Callable[[Array, Array], Array],
    clean: Float[Array, "b h w c"],
    schedule: Schedule,
    prediction: Prediction,
) -> DenoisingError:
    """Mean squared error of the denoised image per pixel, by log-SNR.

    Args:
        outputs: the network's raw outputs for a batch of noisy images at one time.
        clean: images that it was not trained on.
        schedule: noise schedule.
        prediction: what the outputs are.
    """
    noise = jax.random.normal(jax.random.key(0), clean.shape)

    @jax.jit
    def error(log_snr):
        t = schedule.time(log_snr)
        level = schedule.level(t)
        x = level.alpha * clean + level.sigma * noise
        return jnp.mean((prediction.denoised(outputs(x, t), x, level) - clean) ** 2)

    log_snrs = jnp.arange(-10.0, 11.0, 2.0)
    return DenoisingError(log_snrs, jnp.stack([error(log_snr) for log_snr in log_snrs]))
