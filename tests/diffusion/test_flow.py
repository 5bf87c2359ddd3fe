"""The probability-flow ODE and its solvers, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import flow, kernels, priors, schedules
from smcdiff.errors import InputError

SCHEDULES = [schedules.OrnsteinUhlenbeck(), schedules.Cosine(), schedules.VarianceExploding()]
X = jnp.array([[0.5, -0.2, 0.4], [-2.0, 0.3, 1.5], [3.2, 1.0, -0.4]])
COVARIANCE = jnp.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])


def _gaussian():
    mean = jnp.array([1.0, -1.0, 0.0])
    return priors.Gaussian(mean, COVARIANCE, schedule=schedules.OrnsteinUhlenbeck())


def _mixture(schedule):
    means = jnp.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]])
    covariances = jnp.stack([COVARIANCE, COVARIANCE[::-1, ::-1]])
    return priors.GaussianMixture(jnp.array([0.3, 0.7]), means, covariances, schedule=schedule)


GAUSSIAN, MIXTURE = _gaussian(), _mixture(schedules.OrnsteinUhlenbeck())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_log_prob_and_round_trip(schedule):
    prior = _mixture(schedule)
    solver = flow.ProbabilityFlow()
    found = jax.jit(solver.log_prob)(prior, X)
    np.testing.assert_allclose(found.value, prior.log_prob(X), atol=3e-3)
    np.testing.assert_array_equal(found.standard_error, 0.0)
    back = jax.jit(lambda x: solver.decode(prior, solver.encode(prior, x)))(X)
    np.testing.assert_allclose(back, X, atol=1e-3)


def test_standard_error_of_the_probes_covers():
    solver = flow.ProbabilityFlow(exact_trace=0, num_probes=16)
    keys = jax.random.split(jax.random.key(0), 64)
    found = jax.jit(jax.vmap(lambda key: solver.log_prob(MIXTURE, X[0], key)))(keys)
    errors = (found.value - MIXTURE.log_prob(X[0])) / found.standard_error
    # Student's t with 15 degrees of freedom has standard deviation 1.07; 64 draws, 4 errors.
    assert 0.7 < np.std(errors) < 1.5
    assert abs(np.mean(errors)) < 4 * 1.07 / 8


def test_learned_prior_has_a_log_density():
    learned = priors.DiffusionPrior(MIXTURE.denoise, MIXTURE.schedule, (3,))
    # Its start is N(0, I), the mixture's is exact: alpha_T = 0.007 is felt.
    found = jax.jit(learned.log_prob)(X.reshape(3, 1, 3))
    assert found.shape == (3, 1)
    np.testing.assert_allclose(found[:, 0], MIXTURE.log_prob(X), atol=0.05)
    assert np.all(np.isfinite(jax.grad(lambda x: learned.log_prob(x))(X[0])))


def test_encoding_of_a_gaussian_is_linear():
    """The flow of a Gaussian keeps the ellipsoid: x_T has the covariance of p_T."""
    draws = GAUSSIAN.sample(jax.random.key(0), (2000,))
    latent = flow.ProbabilityFlow().encode(GAUSSIAN, draws)
    terminal = GAUSSIAN.terminal()
    # 2,000 draws: a variance has relative standard error sqrt(2 / 2000) = 0.03.
    np.testing.assert_allclose(np.cov(latent.T), np.eye(3), atol=0.15)
    np.testing.assert_allclose(latent.mean(0), terminal.mean, atol=0.1)


def test_fast_solver_beats_ddim_at_20_steps():
    start = jax.vmap(MIXTURE.terminal().sample)(jax.random.split(jax.random.key(1), 256))
    truth = flow.ProbabilityFlow().decode(MIXTURE, start)

    def error(found):
        return float(jnp.sqrt(jnp.mean((found - truth) ** 2)))

    grid = schedules.UniformLogSNR()(MIXTURE.schedule, 20)
    levels = grid

    def ddim(x):
        for index in range(20):
            t, s = (jax.tree.map(lambda f, i=i: f[i], levels) for i in (index, index + 1))
            x = kernels.DDIM(0.0)(MIXTURE, x, MIXTURE.denoise(x, t.time), t, s).mean
        return x

    fast = error(flow.DPMSolver(20).decode(MIXTURE, start))
    faster = error(flow.DPMSolver(40).decode(MIXTURE, start))
    assert fast < 0.5 * error(jax.vmap(ddim)(start))
    assert faster < 0.5 * fast  # second order would be a quarter


def test_sample_and_temperature():
    draws = flow.sample(GAUSSIAN, jax.random.key(0), (2000, 1), solver=flow.DPMSolver(50))
    assert draws.shape == (2000, 1, 3)
    np.testing.assert_allclose(np.cov(draws[:, 0].T), COVARIANCE, atol=0.3)
    cold = flow.sample(GAUSSIAN, jax.random.key(0), (2000,), temperature=0.5)
    ratio = cold.std(0) / draws[:, 0].std(0)
    np.testing.assert_allclose(ratio, 0.5, atol=0.02)
    with pytest.raises(InputError, match="temperature is 0"):
        flow.sample(GAUSSIAN, jax.random.key(0), temperature=0)


def test_interpolation_meets_its_ends():
    between = flow.interpolate(MIXTURE, X[0], X[1], jnp.linspace(0.0, 1.0, 5))
    np.testing.assert_allclose(between[0], X[0], atol=2e-3)
    np.testing.assert_allclose(between[-1], X[1], atol=2e-3)
    same = flow.interpolate(MIXTURE, X[0], X[0], jnp.array([0.5]))
    np.testing.assert_allclose(same[0], X[0], atol=2e-3)


def test_bad_input():
    with pytest.raises(InputError, match=r"must end in the prior's event shape \(3,\)"):
        flow.ProbabilityFlow().encode(MIXTURE, jnp.zeros((3, 2)))
    with pytest.raises(InputError, match="num_probes is 1"):
        flow.ProbabilityFlow(num_probes=1)
