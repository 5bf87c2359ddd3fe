"""Products against the mixture that they are, multiplied out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import priors, schedules
from smcdiff.errors import InputError
from smcdiff.priors.product import Product, product
from tests.proposals.models import MIXTURE, isotropic

DENSE = priors.Gaussian(jnp.array([0.5, -0.5]), jnp.array([[1.0, 0.4], [0.4, 0.5]]))


def learned(schedule, mean, variance):
    """A Gaussian as a network on a schedule of its own."""
    truth = priors.Gaussian(mean, variance, schedule=schedule)
    return priors.DiffusionPrior(
        truth.denoise, schedule, truth.event_shape, data_variance=jnp.max(jnp.asarray(variance))
    ), truth


def test_multiplied_out_is_the_product():
    joint = product([MIXTURE, DENSE], [2, 1])
    assert isinstance(joint, priors.GaussianMixture) and joint.means.shape == (4, 8)
    x = jax.random.normal(jax.random.key(0), (5, 8))
    parts = MIXTURE.log_prob(x[:, :3]) + MIXTURE.log_prob(x[:, 3:6]) + DENSE.log_prob(x[:, 6:])
    np.testing.assert_allclose(joint.log_prob(x), parts, rtol=1e-4)
    np.testing.assert_allclose(Product([MIXTURE, DENSE], [2, 1]).log_prob(x), parts, rtol=1e-4)


def test_diagonal_mixtures_stay_diagonal():
    narrow = priors.GaussianMixture([0.2, 0.8], [[0.0], [1.0]], [0.1, 0.3])
    joint = product([narrow, priors.Gaussian([2.0], 0.5)])
    assert joint.components.basis is None
    np.testing.assert_allclose(joint.mean, [0.8, 2.0], rtol=1e-6)


def test_one_schedule_of_all_is_kept():
    prior, other = isotropic(jnp.zeros(2), 0.3)[0], isotropic(jnp.ones(3), 0.7)[0]
    joint = Product([prior, other], [1, 2])
    assert joint.schedule is prior.schedule
    same = priors.Gaussian([0.0], 1.0, schedule=schedules.Cosine())
    assert isinstance(product([same, same]).schedule, schedules.Cosine)


def test_more_components_than_can_be_multiplied_out():
    many = priors.GaussianMixture(jnp.ones(40), jax.random.normal(jax.random.key(0), (40, 2)), 0.1)
    assert isinstance(product([many], [2]), Product)


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(schedules.Cosine(), marks=pytest.mark.slow),
        schedules.VarianceExploding(),
        schedules.OrnsteinUhlenbeck(),
    ],
    ids=["cosine", "exploding", "ou"],
)
def test_parts_of_other_schedules_denoise_as_the_mixture_does(schedule):
    network, truth = learned(schedule, jnp.array([0.3, -0.2]), jnp.array([0.5, 0.8]))
    joint, exact = Product([network, MIXTURE], [2, 1]), product([truth, MIXTURE], [2, 1])
    for log_snr in (-5.0, 0.0, 4.0):  # where all schedules reach
        level = joint.schedule.level(joint.schedule.time(jnp.asarray(log_snr)))
        x = exact.marginal(level).sample(jax.random.key(1))
        expected = exact.mean_given(x, level)
        np.testing.assert_allclose(joint.denoise(x, level.time), expected, atol=2e-5)
        np.testing.assert_allclose(
            jax.jit(lambda p, x, t: p.denoise(x, t))(joint, x, level.time), expected, atol=2e-5
        )


def test_a_network_is_asked_within_its_own_levels():
    short = schedules.Cosine(t_min=0.1, t_max=0.9)
    prior = priors.DiffusionPrior(  # which tells the time that it is asked at
        lambda x, t: jnp.full_like(x, t), short, (1,), data_variance=0.1, probe=False
    )
    joint = Product([prior, MIXTURE])
    ends = (joint.schedule.t_min, joint.schedule.t_max)
    asked = [joint.denoise(jnp.ones(4), time)[0] for time in ends]
    np.testing.assert_allclose(asked, [0.1, 0.9], rtol=1e-5)


def test_start_has_the_moments_of_the_mixture():
    joint, exact = Product([MIXTURE, DENSE], [1, 2]), product([MIXTURE, DENSE], [1, 2])
    start, level = joint.terminal(), joint.schedule.noisiest
    np.testing.assert_allclose(start.mean, level.alpha * exact.mean, rtol=1e-5)
    variances = level.alpha**2 * exact.variance + level.sigma**2
    np.testing.assert_allclose(start.eigenvalues[0], variances, rtol=1e-5)
    # So little is left of the mixture that nothing but its moments shows.
    left = level.alpha**2 * jnp.max(exact.variance) / level.sigma**2
    assert left < 2e-3


def test_scales_and_points():
    wide, narrow = isotropic(jnp.full(2, 10.0), 4.0)[1], isotropic(jnp.zeros(6), 0.01)[1]
    joint = Product([wide, narrow])
    level = joint.schedule.level(joint.schedule.time(jnp.zeros(())))
    np.testing.assert_allclose(joint.spread(level), wide.spread(level), rtol=1e-6)
    expected = (2 * wide.average_spread(level) + 6 * narrow.average_spread(level)) / 8
    np.testing.assert_allclose(joint.average_spread(level), expected, rtol=1e-5)
    draws = joint.sample(jax.random.key(0), (4000,))
    # A standard deviation is known to 1 / sqrt(2 n) = 1.1 %, and a mean to 1.6 %, of it.
    np.testing.assert_allclose(draws.mean(0), joint.centre, atol=0.1)
    np.testing.assert_allclose(draws.std(0), [2.0] * 2 + [0.1] * 6, rtol=0.05)
    np.testing.assert_allclose(jnp.mean(jax.vmap(joint.widths)(draws) ** 2), 1.0, rtol=0.03)
    points = joint.probe_points(200)
    assert jnp.std(points[:, 0]) > 1.5 and jnp.std(points[:, -1]) < 0.2
    assert not np.allclose(points[:, 2], points[:, 3])  # copies are apart


def test_denoising_error_is_the_average():
    first, second = isotropic(jnp.zeros(1), 0.5)[0], isotropic(jnp.zeros(3), 0.2)[0]
    joint = Product([first, second])
    level = joint.schedule.level(joint.schedule.time(jnp.asarray(1.0)))
    expected = (first.denoising_error.at(level) + 3 * second.denoising_error.at(level)) / 4
    np.testing.assert_allclose(joint.denoising_error.at(level), expected, rtol=1e-5)
    assert Product([first, MIXTURE]).denoising_error is None


@pytest.mark.parametrize(
    ("parts", "copies", "match"),
    [([], None, "pass priors"), ([1.0], None, "pass priors"), ([DENSE], [0], "copies")],
)
def test_what_is_no_product(parts, copies, match):
    with pytest.raises(InputError, match=match):
        Product(parts, copies)
