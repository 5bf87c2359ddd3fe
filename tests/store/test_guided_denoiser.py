"""Classifier-free guidance of a network with labels, on a mixture: the moments of its chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from smcdiff import priors, schedules
from smcdiff.store._network_functions import NetworkDenoiser

SCHEDULE, VARIANCE, LABEL, STEPS = schedules.Cosine(t_max=0.995), 0.1, 1, 20
MEANS, SHARES = np.array([-0.8, 0.6]), np.array([0.7, 0.3])


class Labelled(nnx.Module):
    """The exact x_0 network of two Gaussians; label 2 is none."""

    def __init__(self):
        self.means = nnx.Param(jnp.asarray(MEANS))

    def __call__(self, x, timesteps, labels):
        level = SCHEDULE.level(timesteps[0] / schedules.TIMESTEPS)
        return mean_given(jnp, x, level, labels.reshape(-1, 1, 1, 1), self.means[...])


def mean_given(np, x, level, label, means):
    """E[x_0 given x_t = x, label], elementwise, by JAX or by NumPy."""
    total = level.alpha**2 * VARIANCE + level.sigma**2
    each = [m + level.alpha * VARIANCE / total * (x - level.alpha * m) for m in means]
    logs = [np.log(w) - 0.5 * (x - level.alpha * m) ** 2 / total
            for w, m in zip(SHARES, means, strict=True)]  # fmt: skip
    share = 1.0 / (1.0 + np.exp(logs[0] - logs[1]))
    both = (1.0 - share) * each[0] + share * each[1]
    return np.where(label == 2, both, np.where(label == 1, each[1], each[0]))


def chain_moments(strength):
    """Mean and variance of DDPM's chain with the guided mean, its law carried on a grid."""
    levels = schedules.UniformLogSNR()(SCHEDULE, STEPS)
    alpha, sigma, log_snr = (np.asarray(a, float) for a in (levels.alpha, levels.sigma,
                                                            levels.log_snr))  # fmt: skip
    grid = np.linspace(-6.0, 6.0, 1501)
    mass = stats.norm.pdf(grid, 0.0, sigma[0])
    for k in range(len(alpha) - 1):
        level = schedules.Level(0.0, alpha[k], sigma[k], log_snr[k], k)
        plain, given = (mean_given(np, grid, level, label, MEANS) for label in (2, LABEL))
        denoised = plain + strength * (given - plain)
        mass /= mass.sum()
        if k == len(alpha) - 2:  # the last step goes to the denoised mean
            mean = mass @ denoised
            return mean, mass @ (denoised - mean) ** 2
        ratio = np.exp(log_snr[k] - log_snr[k + 1])
        noise = sigma[k + 1] * np.sqrt(ratio) / sigma[k]
        mean = noise * grid + (alpha[k + 1] - alpha[k] * noise) * denoised
        spread = sigma[k + 1] * np.sqrt(1.0 - ratio)
        mass = stats.norm.pdf(grid[:, None], mean[None], spread) @ mass


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_moments_of_guided_draws(strength):
    """Strength is omega: 0 is no label, 1 the label alone, and 3 goes beyond (not 1 + omega)."""
    prior = priors.DiffusionPrior(
        NetworkDenoiser.wrap(Labelled(), 2), SCHEDULE, (1, 1, 1), num_steps=STEPS
    )
    mean, variance = chain_moments(strength)
    draws = np.asarray(prior.given(LABEL, strength).sample(jax.random.key(0), (20_000,))).ravel()
    # 3 standard errors, that of a variance by the draws' own fourth moment.
    fourth = np.mean((draws - draws.mean()) ** 4) - draws.var() ** 2
    assert abs(draws.mean() - mean) < 3.0 * np.sqrt(draws.var() / 20_000)
    assert abs(draws.var() - variance) < 3.0 * np.sqrt(fourth / 20_000)
    # What the law is, but for what 20 steps lose; guidance overshoots the class.
    if strength < 2.0:
        total = SHARES @ MEANS if strength == 0.0 else MEANS[LABEL]
        np.testing.assert_allclose(mean, total, atol=0.05)
    else:
        assert mean > MEANS[LABEL] + 0.02 and variance < VARIANCE
