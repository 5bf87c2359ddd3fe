"""A DDPM's own array of betas, as a schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, priors, proposals, schedules
from smcdiff.errors import InputError

LINEAR = np.linspace(1e-4, 0.02, 1000)
SCALED_LINEAR = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2


def cosine(count=1000):
    """Nichol and Dhariwal (2021), eq. 17, with betas clipped at 0.999."""
    times = np.arange(count + 1) / count
    alpha_bar = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


@pytest.mark.parametrize("betas", [LINEAR, SCALED_LINEAR, cosine(), LINEAR[::100]])
def test_levels_are_those_of_the_array(betas):
    schedule = schedules.from_betas(betas)
    index = np.arange(len(betas))
    times = jnp.asarray((index + 1) / len(betas), jnp.float32)
    level = schedule.level(times)
    alpha_bar = np.cumprod(1.0 - betas)
    np.testing.assert_allclose(level.alpha**2, alpha_bar, rtol=1e-4)
    np.testing.assert_allclose(level.sigma**2, 1.0 - alpha_bar, rtol=1e-4)
    np.testing.assert_allclose(schedule.index(times), index, atol=1e-3)
    assert schedule.level(0.0).is_clean


@pytest.mark.parametrize("betas", [LINEAR, SCALED_LINEAR, cosine()])
def test_time_inverts_the_log_snr_between_levels(betas):
    schedule = schedules.from_betas(betas)
    times = jnp.linspace(schedule.t_min, schedule.t_max, 777)
    np.testing.assert_allclose(schedule.time(schedule.log_snr(times)), times, rtol=1e-3)
    levels = schedules.UniformLogSNR()(schedule, 20)
    np.testing.assert_allclose(levels.time[jnp.array([0, -2])], [1.0, 1e-3], rtol=1e-3)


def test_is_a_pytree():
    schedule = jax.jit(lambda schedule: schedule)(schedules.from_betas(LINEAR))
    assert schedule.log_alpha_bar.shape == (1000,)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "betas", [1.0 - LINEAR[None], [0.5], [0.1, 1.0], np.cumprod(1.0 - LINEAR) - 1.0]
)
def test_what_is_no_array_of_betas(betas):
    with pytest.raises(InputError, match=r"from_betas: .* each in \(0, 1\)"):
        schedules.from_betas(betas)


def test_cumulative_products_are_no_betas():
    with pytest.raises(InputError, match="the first beta is 1, .*not alphas, nor cumulative"):
        schedules.from_betas(np.cumprod(1.0 - LINEAR))


@pytest.mark.slow
def test_evidence_is_that_of_the_analytic_schedule():
    """The same random numbers and no resampling, which flips: only the schedules differ."""
    matrix = jnp.array([[1.0, 0.5, -0.3], [0.0, 1.0, 0.8]])
    covariance = jnp.array([[1.0, 0.4, 0.0], [0.4, 0.8, 0.1], [0.0, 0.1, 0.5]])

    never = {"ess_threshold": 0.0}

    def log_evidence(schedule):
        prior = priors.Gaussian(jnp.array([0.5, -0.2, 0.1]), covariance, schedule)

        def model(y=None):
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(matrix @ x, 0.4).to_event(1), obs=y)

        smc = SMC(model, proposal=proposals.Twisted(), num_particles=500, num_steps=60, **never)
        y = jnp.array([1.0, -2.0])
        return smc.run(jax.random.key(0), y=y).log_evidence[0]

    found = log_evidence(schedules.from_betas(LINEAR))
    np.testing.assert_allclose(found, log_evidence(schedules.LinearBeta(0.1, 20.0)), atol=1e-3)
