"""The noise that training adds: the schedule, noisy batches, and errors by noise level."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion import schedules
from smcdiff.priors.learned import Prediction
from smcdiff.training.weighting import Weighting, draw_times

# Trained a little beyond the levels that are sampled, so that no sampled one is at the border.
TRAINED = schedules.Cosine(t_min=0.004, t_max=0.996)
SAMPLED = schedules.Cosine()


def noisy(
    key: PRNGKeyArray, clean: Float[Array, "b h w c"], weighting: Weighting, prediction: Prediction
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"], Float[Array, " b"]]:
    """A batch with noise at stratified times, drawn by their weight.

    Returns:
        The noisy images, the noise, and the times.
    """
    key_time, key_noise = jax.random.split(key)
    batch = clean.shape[0]
    strata = (jnp.arange(batch) + jax.random.uniform(key_time)) / batch
    times = draw_times(strata, weighting, prediction, TRAINED)
    level = schedules.levels(TRAINED, times[:, None, None, None])
    noise = jax.random.normal(key_noise, clean.shape)
    return level.alpha * clean + level.sigma * noise, noise, times


def held_out_errors(
    outputs: Callable[[Array, Array], Array],
    clean: Float[Array, "b h w c"],
    prediction: Prediction,
) -> dict[int, float]:
    """Mean squared error of the denoised image, a pixel, by log-SNR.

    Args:
        outputs: the network's raw outputs for a batch of noisy images at one time.
        clean: images that it was not trained on.
        prediction: what the outputs are.
    """
    noise = jax.random.normal(jax.random.key(0), clean.shape)

    @jax.jit
    def error(t):
        level = schedules.levels(TRAINED, t)
        x = level.alpha * clean + level.sigma * noise
        return jnp.mean((prediction.denoised(outputs(x, t), x, level) - clean) ** 2)

    log_snrs = range(-10, 11, 2)
    return {v: float(error(TRAINED.time(jnp.asarray(float(v))))) for v in log_snrs}
