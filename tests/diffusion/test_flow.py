"""The probability-flow ODE and its solvers, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import flow, kernels, priors, schedules
from smcdiff.errors import InputError

SCHEDULES = [schedules.OrnsteinUhlenbeck(), schedules.Cosine(), schedules.VarianceExploding()]
X = np.float32([[0.5, -0.2, 0.4], [-2.0, 0.3, 1.5], [3.2, 1.0, -0.4]])
COVARIANCE = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])


def _gaussian():
    mean = np.array([1.0, -1.0, 0.0])
    return priors.Gaussian(mean, COVARIANCE, schedule=schedules.OrnsteinUhlenbeck())


def _mixture(schedule):
    means = np.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]])
    covariances = np.stack([COVARIANCE, COVARIANCE[::-1, ::-1]])
    return priors.GaussianMixture(np.array([0.3, 0.7]), means, covariances, schedule=schedule)


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
    x = jnp.asarray(X[0])
    found = jax.jit(jax.vmap(lambda key: solver.log_prob(MIXTURE, x, key)))(keys)
    value, standard_error = map(np.asarray, found)
    errors = (value - np.asarray(MIXTURE.log_prob(X[0]))) / standard_error
    # Student's t with 15 degrees of freedom has standard deviation 1.07; 64 draws, 4 errors.
    assert 0.7 < np.std(errors) < 1.5
    assert abs(np.mean(errors)) < 4 * 1.07 / 8


@pytest.mark.slow
def test_learned_prior_has_a_log_density():
    learned = priors.DiffusionPrior(MIXTURE.denoise, MIXTURE.schedule, (3,))
    # Its start is N(0, I), the mixture's is exact: alpha_T = 0.007 is felt.
    found = jax.jit(learned.log_prob)(X.reshape(3, 1, 3))
    assert found.shape == (3, 1)
    np.testing.assert_allclose(found[:, 0], MIXTURE.log_prob(X), atol=0.05)
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: learned.log_prob(x)))(X[0])))


def test_encoding_of_a_gaussian_is_linear():
    """The flow of a Gaussian keeps the ellipsoid: x_T has the covariance of p_T."""
    draws = GAUSSIAN.sample(jax.random.key(0), (2000,))
    latent = np.asarray(jax.jit(flow.ProbabilityFlow().encode)(GAUSSIAN, draws))
    mean = jax.jit(lambda prior: prior.terminal().mean)(GAUSSIAN)
    # 2,000 draws: a variance has relative standard error sqrt(2 / 2000) = 0.03.
    np.testing.assert_allclose(np.cov(latent.T), np.eye(3), atol=0.15)
    np.testing.assert_allclose(latent.mean(0), mean, atol=0.1)


def test_fast_solver_beats_ddim_at_20_steps():
    levels = schedules.UniformLogSNR()(MIXTURE.schedule, 20)

    def ddim(x):
        def step(x, index):
            t, s = (jax.tree.map(lambda f, i=i: f[i], levels) for i in (index, index + 1))
            return kernels.DDIM(0.0)(MIXTURE, x, MIXTURE.denoise(x, t.time), t, s).mean, None

        return jax.lax.scan(step, x, jnp.arange(20))[0]

    @jax.jit
    def ends(key):
        start = jax.vmap(MIXTURE.terminal().sample)(jax.random.split(key, 256))
        solvers = (flow.ProbabilityFlow(), flow.DPMSolver(20), flow.DPMSolver(40))
        return *(solver.decode(MIXTURE, start) for solver in solvers), jax.vmap(ddim)(start)

    truth, *found = map(np.asarray, ends(jax.random.key(1)))
    fast, faster, slow = (np.sqrt(np.mean((x - truth) ** 2)) for x in found)
    assert fast < 0.5 * slow
    assert faster < 0.5 * fast  # second order would be a quarter


def test_sample_and_temperature():
    @jax.jit
    def both(key):
        warm = flow.sample(GAUSSIAN, key, (2000, 1), solver=flow.DPMSolver(50))
        return warm, flow.sample(GAUSSIAN, key, (2000,), temperature=0.5)

    draws, cold = map(np.asarray, both(jax.random.key(0)))
    assert draws.shape == (2000, 1, 3)
    np.testing.assert_allclose(np.cov(draws[:, 0].T), COVARIANCE, atol=0.3)
    ratio = cold.std(0) / draws[:, 0].std(0)
    np.testing.assert_allclose(ratio, 0.5, atol=0.02)
    with pytest.raises(InputError, match="temperature is 0"):
        flow.sample(GAUSSIAN, jax.random.key(0), temperature=0)


@jax.jit
def _between(first, second, fractions):
    return flow.interpolate(MIXTURE, first, second, fractions)


def test_interpolation_meets_its_ends():
    between = _between(X[0], X[1], np.linspace(0.0, 1.0, 5, dtype=np.float32))
    np.testing.assert_allclose(between[0], X[0], atol=2e-3)
    np.testing.assert_allclose(between[-1], X[1], atol=2e-3)
    same = _between(X[0], X[0], np.full(5, 0.5, np.float32))
    np.testing.assert_allclose(same[0], X[0], atol=2e-3)


def test_bad_input():
    with pytest.raises(InputError, match=r"must end in the prior's event shape \(3,\)"):
        flow.ProbabilityFlow().encode(MIXTURE, jnp.zeros((3, 2)))
    with pytest.raises(InputError, match="num_probes is 1"):
        flow.ProbabilityFlow(num_probes=1)
