"""The widened twist: its value, and its options."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import InputError, kernels, priors, schedules, twists
from smcdiff.problem import ReverseModel, read


@pytest.mark.parametrize("num_points", [0, 3])
def test_pairs_of_points(num_points):
    with pytest.raises(InputError, match="even"):
        twists.Widened(num_points=num_points)


def test_keeps_its_digits_where_the_noise_is_small():
    """log psi = sum_i log N(y_i; f_i(m), sigma^2 + spread |grad f_i|^2), here f_i = x_i^2 + 1.

    At the denoised mean the misfits are a thousand sigma: half their squares, 3e7, hold the twist,
    some tens of nat, to a few nat in float32.
    """
    sigma, y = 1e-3, jnp.zeros(64)

    def squares(y):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(64), 1.0))
        numpyro.sample("y", dist.Normal(x**2 + 1.0, sigma).to_event(1), obs=y)

    problem = read(squares, (y,))
    levels = schedules.UniformLogSNR()(problem.prior.schedule, 4)
    model = ReverseModel(problem, kernels.Exact(), levels)
    twist, denoised = twists.Widened(), np.linspace(0.5, 1.0, 64, dtype=np.float32)

    @jax.jit
    def found(denoised):
        prepared, level = twist.prepare(jax.random.key(0), model), model.level(1)
        value = twist.at(model, prepared, denoised, denoised, level).log_twist
        return value, problem.prior.spread(level)

    value, spread = map(float, found(denoised))
    at = denoised.astype(np.float64)
    variances = sigma**2 + spread * (2.0 * at) ** 2
    expected = -0.5 * np.sum((at**2 + 1.0) ** 2 / variances + np.log(2 * np.pi * variances))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
