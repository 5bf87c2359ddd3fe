"""Tempered twists of likelihoods whose noise is not known: their end at zero noise."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import kernels, priors, schedules, twists
from smcdiff.problem import ReverseModel, read

SIZE = 2


def line(noise, num_readings):
    """A line through readings, and counts, so that it is no Gaussian observation."""
    places = jnp.linspace(0.0, 1.0, num_readings)

    def model(y, counts):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(SIZE), 1.0))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("y", noise(x[0] + x[1] * places, scale).to_event(1), obs=y)
        numpyro.sample("counts", dist.Poisson(jnp.exp(x[:1])).to_event(1), obs=counts)

    y = 1.0 + places + 0.3 * jnp.cos(7.0 * jnp.arange(num_readings))
    return read(model, (y, jnp.array([3])))


def wide(noise):
    """A reading of each of 12 entries."""

    def model(y):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(12), 1.0))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("y", noise(x, scale).to_event(1), obs=y)

    return read(model, (jnp.linspace(-1.0, 1.0, 12),))


def log_twist_of(problem, at):
    """The twist, of the one unknown parameter without constraint and of the level, of eight."""
    levels = schedules.UniformLogSNR()(problem.prior.schedule, 8)
    model, twist = ReverseModel(problem, kernels.Exact(), levels), twists.Widened()
    prepared, x = jax.jit(twist.prepare)(jax.random.key(0), model), jnp.full(problem.prior.size, at)

    def value(parameter, level):
        given = model.given(parameter[None])
        adapted = twist.adapt(given, prepared)
        return twist.at(given, adapted, x, x, model.level(level)).log_twist

    return jax.jit(jax.vmap(jax.vmap(value, (0, None)), (None, 0)))


NOISES = {
    "normal": dist.Normal,
    "heavy": lambda mean, scale: dist.StudentT(4.0, mean, scale),
    "no-mean": dist.Cauchy,
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("make", [lambda noise: line(noise, 8), wide], ids=["more-data", "entries"])
def test_does_not_grow_without_end_as_the_noise_goes_to_zero(make, noise):
    """Or p(theta) psi_t would have no integral, and every particle would end at no noise."""
    scales = jnp.log(jnp.array([1e-5, 1e-3, 1e-1, 1.0]))
    found = log_twist_of(make(noise), 0.3)(scales, jnp.array([0, 4]))
    assert np.all(np.isfinite(found))
    for level, (none, small, some, one) in enumerate(found):
        # From 0.001 to 0.00001 the density of one reading grows by 4.6 nat at its top.
        assert none < small + 1.0, (level, none, small, some, one)
        assert max(none, small) < max(some, one) + 3.0, (level, none, small, some, one)


def test_what_is_masked_is_as_if_not_there_and_factors_are_no_densities():
    places = jnp.arange(12)
    seen = places % 3 > 0

    def model(y, masked):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(12), 1.0))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        noise = dist.StudentT(4.0, x if masked else x[seen], scale)
        numpyro.sample("y", (noise.mask(seen) if masked else noise).to_event(1), obs=y)
        numpyro.factor("smooth", -jnp.sum(jnp.diff(x) ** 2))

    y, at = jnp.linspace(-1.0, 1.0, 12), (jnp.array([-2.0]), jnp.array([1, 4]))
    whole, part = (read(model, (y, True)), read(model, (y[seen], False)))
    found, wanted = (log_twist_of(problem, 0.3)(*at) for problem in (whole, part))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_peak_that_is_impossible_in_the_middle_is_a_number():
    """Of an ordered outcome whose middle class has no room."""

    def model(y):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(12), 1.0))
        width = numpyro.sample("width", dist.HalfNormal(1.0))
        cuts = jnp.stack([jnp.zeros(()), width])
        cuts = jnp.where(width > 0.5, cuts, 0.0)  # then class 1 has no probability
        numpyro.sample("y", dist.OrderedLogistic(x, cuts).to_event(1), obs=y)

    problem = read(model, (jnp.array([0, 1, 2] * 4),))
    found = log_twist_of(problem, 0.0)(jnp.array([-3.0, 3.0]), jnp.array([2]))
    assert np.all(np.isfinite(found))
