"""The Euler-Maruyama kernel: the textbook's coefficients, and convergence to the target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import SMC, InputError, kernels, priors, schedules
from tests.proposals.models import DENSE, MIXTURE, NOISE, Y, model


def test_coefficients_of_the_ornstein_uhlenbeck_step():
    """x + gamma (x + 2 s) and variance 2 gamma; sigma_t^2 - sigma_s^2 for variance exploding."""
    x, denoised = np.float32([0.7]), np.float32([0.2])
    for schedule, gamma, variance in (
        (schedules.OrnsteinUhlenbeck(), 0.1, 0.2),
        (schedules.VarianceExploding(), 0.0, 0.5**2 - 0.4**2),
    ):

        @jax.jit
        def step(x, denoised, schedule=schedule):
            t, s = (schedule.level(v) for v in (0.5, 0.4))
            law = kernels.EulerMaruyama()(MIXTURE, x, denoised, t, s)
            return t, law.mean, law.mean_variance

        t, mean, spread = step(x, denoised)
        score = (t.alpha * denoised - x) / t.sigma**2
        np.testing.assert_allclose(mean, x + gamma * x + variance * score, rtol=1e-5)
        np.testing.assert_allclose(spread, variance, rtol=1e-5)


def test_variance_of_a_fine_grid():
    """2 gamma keeps its digits in float32 where 1,000 steps leave alphas that are equal to five."""
    schedule = schedules.OrnsteinUhlenbeck()
    levels = schedules.UniformLogSNR()(schedule, 1000)
    steps = [jax.tree.map(lambda a, i=i: np.asarray(a)[i : 1000 + i], levels) for i in (0, 1)]

    @jax.jit
    def variances(t, s):
        x = jnp.zeros(2)
        return jax.vmap(lambda t, s: kernels.EulerMaruyama()(None, x, x, t, s))(t, s).eigenvalues

    log_alpha = -0.5 * np.log1p(np.exp(-np.asarray(levels.log_snr, np.float64)))
    np.testing.assert_allclose(variances(*steps)[:, 0, 0], 2.0 * np.diff(log_alpha), rtol=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_ancestral_sampling_finds_the_prior(weighted):
    """Many small steps; with weights on, an observation so noisy that it says nothing."""
    smc = SMC(model, num_particles=4000, num_steps=400, weighted=weighted, progress_bar=False,
              kernel=kernels.EulerMaruyama(), grid=schedules.UniformTime())  # fmt: skip
    prior = priors.GaussianMixture(
        jnp.array([0.3, 0.7]), jnp.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]]), 0.5
    )
    posterior = smc.run(jax.random.key(0), prior, DENSE, 1e3 * NOISE, y=Y)
    draws = posterior.samples["x"][0]
    # 4,000 draws of standard deviation up to 2.4: 0.04 a mean; the steps' own bias is below that.
    np.testing.assert_allclose(draws.mean(axis=0), prior.mean, atol=0.2)
    np.testing.assert_allclose(np.std(draws, axis=0), np.sqrt(prior.variance), atol=0.15)


def test_optimal_variance_is_exact_for_an_isotropic_gaussian():
    """Long steps: the kernel is p(x_s given x_t) itself, mean and variance, the last step too."""
    prior = priors.Gaussian(jnp.array([1.0, -1.0]), 0.7, schedule=schedules.Cosine())
    log_snr = np.linspace(-10.0, 10.0, 81, dtype=np.float32)
    # Posterior variance of a coordinate: 1 / (1 / 0.7 + SNR).
    variances = 1.0 / (1.0 / 0.7 + np.exp(log_snr))
    error = priors.DenoisingError(*jax.device_put((log_snr, variances)))
    learned = priors.DiffusionPrior(prior.denoise, prior.schedule, (2,), denoising_error=error)
    x = np.float32([0.3, 2.0])

    @jax.jit
    def moments(x, t, s):
        t, s = (prior.schedule.level(v) for v in (t, s))
        found = kernels.AnalyticDPM()(learned, x, prior.denoise(x, t.time), t, s)
        exact = prior.reverse(x, t, s)
        return (found.mean, exact.mean), (found.mean_variance, exact.mean_variance)

    for t, s in ((0.9, 0.5), (0.5, 0.1), (0.3, 0.0)):
        means, variances = moments(x, t, s)
        np.testing.assert_allclose(*means, rtol=1e-4)
        np.testing.assert_allclose(*variances, rtol=1e-2)


def test_optimal_variance_needs_the_denoising_error():
    learned = priors.DiffusionPrior(lambda x, t: 0.1 * x, schedules.Cosine(), (2,))
    with pytest.raises(InputError, match="does not have; pass denoising_error"):
        kernels.AnalyticDPM().check(learned)
    error = priors.DenoisingError(jnp.linspace(-9.0, 9.0, 3), jnp.array([1.0, 0.5, 0.0]))
    learned = priors.DiffusionPrior(
        lambda x, t: 0.1 * x, schedules.Cosine(), (2,), denoising_error=error
    )
    kernels.AnalyticDPM().check(learned)


@pytest.mark.parametrize("eta", [1.0, 0.5, 0.0])
def test_coefficients_of_long_steps(eta):
    """Up to a log-SNR of 30 in one step; against float64."""
    schedule = schedules.OrnsteinUhlenbeck()

    @jax.jit
    def coefficients(gap):
        t, s = (schedule.level(schedule.time(v)) for v in (-gap / 2, gap / 2))
        return t, s, kernels.bridge(t, s, eta)

    for gap in (1e-3, 1.0, 16.0, 30.0):
        t, s, (c, k, tau2) = coefficients(gap)
        log_snr, alpha = ([float(getattr(v, n)) for v in (t, s)] for n in ("log_snr", "alpha"))
        sigma = [float(v.sigma) for v in (t, s)]
        ratio = np.exp(log_snr[0] - log_snr[1])
        expected = np.sqrt(1.0 - eta**2 + eta**2 * ratio) * sigma[1] / sigma[0]
        np.testing.assert_allclose(c, expected, rtol=1e-4)
        np.testing.assert_allclose(k, alpha[1] - alpha[0] * expected, rtol=1e-3)
        variance = eta**2 * sigma[1] ** 2 * -np.expm1(log_snr[0] - log_snr[1])
        np.testing.assert_allclose(tau2, variance, rtol=1e-4)
