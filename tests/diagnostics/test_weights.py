"""`weight_variance` against what both parts are in one Gaussian dimension."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import priors, proposals, schedules, twists
from smcdiff.diagnostics.weights import weight_variance
from smcdiff.errors import InputError, SamplingError
from tests.proposals.models import DENSE, GAUSSIAN, MIXTURE, NOISE, Y, model

MEAN, VARIANCE, NOISE_VARIANCE, DATA = 0.3, 1.5, 2.0, 1.0
# The last noisy level is noisy enough for the last step to have weights that vary.
SCHEDULE = schedules.OrnsteinUhlenbeck(t_min=0.2, t_max=3.0)
PRIOR = priors.Gaussian(jnp.array([MEAN]), VARIANCE, schedule=SCHEDULE)


def _found(proposal, num_draws, num_particles=4000, num_steps=4):
    return weight_variance(
        jax.random.key(0), model, proposal, PRIOR, jnp.eye(1), jnp.array([NOISE_VARIANCE**0.5]),
        jnp.array([DATA]), num_particles=num_particles, num_draws=num_draws, num_steps=num_steps,
    )  # fmt: skip


def _left(log_snr):
    """Variance of x_0 given x_t, at the levels and at the clean end."""
    return np.append(1.0 / (1.0 / VARIANCE + np.exp(log_snr)), 0.0)


def _of_square(precision, mean, variance):
    """Variance of - precision z^2 / 2 for z in N(mean, variance)."""
    return (0.5 * precision) ** 2 * (2.0 * variance**2 + 4.0 * mean**2 * variance)


@pytest.mark.slow
def test_a_proposal_that_draws_blindly():
    """Bootstrap: nothing happens until y is weighed at the end, where log w = log p(y given x_0).

    Its average is log N(y; m, r + c), with m the mean and c the variance of x_0 given x_t.
    """
    found = _found(proposals.Bootstrap(), num_draws=64)
    np.testing.assert_allclose(found.twist[:-1], 0.0, atol=1e-6)
    np.testing.assert_allclose(found.proposal[:-1], 0.0, atol=1e-6)
    left, total = _left(found.log_snr)[-2], NOISE_VARIANCE + _left(found.log_snr)[-2]
    off, known = MEAN - DATA, VARIANCE - left
    # 4,000 particles: standard errors of 4 % (those of a variance of squares of normals).
    twist = _of_square(1.0 / total, off, known)
    np.testing.assert_allclose(found.twist[-1], twist, rtol=0.15)
    # The mean square of m - y is off^2 + known.
    proposal = _of_square(1.0 / NOISE_VARIANCE, np.sqrt(off**2 + known), left)
    np.testing.assert_allclose(found.proposal[-1], proposal, rtol=0.15)
    assert found.proposal[-1] > 0.02  # there is something to be found


def test_a_twist_that_is_too_sure():
    """psi_t = N(y; m(x_t), r), whose average over x_s is N(y; m, r + D), D = c_t - c_s.

    The particles of a level follow p psi: m is N(MEAN, v) N(y; m, r), whatever came before.
    """
    found = _found(proposals.Bootstrap(twist=twists.Likelihood()), num_draws=64)
    left = _left(found.log_snr)
    added, known = left[:-1] - left[1:], VARIANCE - left[:-1]
    variance = 1.0 / (1.0 / known + 1.0 / NOISE_VARIANCE)
    off = variance * (MEAN / known + DATA / NOISE_VARIANCE) - DATA
    precision = 1.0 / NOISE_VARIANCE - 1.0 / (NOISE_VARIANCE + added)
    square = np.sqrt(off**2 + variance)
    expected = _of_square(1.0 / NOISE_VARIANCE, square, added)
    np.testing.assert_allclose(found.proposal, expected, rtol=0.2)
    # 64 draws leave an average a 64th of the proposal's variance, known to 3 %.
    twist, noise = _of_square(precision, off, variance), 0.1 * expected / 64
    assert np.all(np.abs(found.twist - twist) < 0.2 * twist + noise)
    assert np.all(twist[2:] > 5.0 * noise[2:])


@pytest.mark.slow
def test_the_noise_of_an_average_is_no_fault_of_the_twist():
    """An exact twist, drawn blindly: with 8 draws the averages' own variance is 1/8 of the rest."""
    exact = proposals.Bootstrap(twist=twists.MomentMatched())
    found = _found(exact, num_draws=8)
    assert np.all(found.proposal[1:] > 0.02)
    # 4,000 particles tell the noise of their averages to 3 %; it is of second order in the rest
    # besides, so that a tenth of it is left at most.
    assert np.all(np.abs(found.twist[1:]) < 0.1 * found.proposal[1:] / 8)


def test_a_proposal_that_knows_all_has_neither():
    found = weight_variance(
        jax.random.key(0), model, proposals.MomentMatched(), GAUSSIAN, DENSE, NOISE, Y,
        num_particles=16, num_draws=4, num_steps=6,
    )  # fmt: skip
    np.testing.assert_allclose(found.twist, 0.0, atol=1e-5)
    np.testing.assert_allclose(found.proposal, 0.0, atol=1e-5)


@pytest.mark.slow
def test_shorter_steps_are_of_use_to_the_proposal_alone():
    """What a twist misses of a mixture does not depend on the steps; the linearisation does."""

    def sums(num_steps):
        found = weight_variance(
            jax.random.key(0), model, proposals.Twisted(), MIXTURE, DENSE, 2.0 * NOISE, Y,
            num_particles=256, num_draws=32, num_steps=num_steps,
        )  # fmt: skip
        return found.twist.sum(), found.proposal.sum()

    (few_twist, few), (many_twist, many) = sums(8), sums(64)
    assert many < 0.4 * few
    assert many_twist > 0.4 * few_twist


def test_weights_that_are_zero_are_said_to_be():
    def clipped(prior, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Uniform(x - 3.0, x + 3.0).to_event(1), obs=y)

    found = weight_variance(
        jax.random.key(0), clipped, proposals.Bootstrap(), PRIOR, y=jnp.array([DATA]), num_steps=3
    )
    assert np.all(np.isfinite(found.twist[:-1])) and np.isinf(found.twist[-1])
    assert np.isinf(found.proposal[-1])
    with pytest.raises(SamplingError, match="no finite weight was left after step 4 of the filter"):
        weight_variance(
            jax.random.key(0), clipped, proposals.Bootstrap(), PRIOR, y=jnp.array([1e4]),
            num_steps=3,
        )  # fmt: skip


def test_messages():
    with pytest.raises(InputError, match="num_draws is 1; it must be at least 2"):
        _found(proposals.Bootstrap(), num_draws=1)
    with pytest.raises(InputError, match="num_particles is 1; it must be at least 2"):
        _found(proposals.Bootstrap(), num_draws=2, num_particles=1)
