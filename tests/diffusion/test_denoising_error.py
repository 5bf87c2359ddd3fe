"""`DenoisingError`: between its levels, and the grid that it suggests."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, proposals, schedules
from smcdiff.diffusion.denoising_error import DenoisingError
from tests.proposals.models import isotropic


def test_focus_is_where_the_error_falls():
    """1 / (1 + SNR) is 0.9 at log-SNR log(1 / 9) and 0.005 at log(199)."""
    log_snr = jnp.linspace(-10.0, 10.0, 200)
    grid = DenoisingError(log_snr, 1.0 / (1.0 + jnp.exp(log_snr))).focus()
    assert (grid.low, grid.high) == (-2.2, 5.3)


def test_focus_of_an_error_that_does_not_fall_everywhere():
    """A measured one may rise by chance."""
    error = DenoisingError(jnp.array([-6.0, -4.0, 0.0, 6.0]), jnp.array([0.99, 1.0, 0.5, 1e-3]))
    grid = error.focus()
    assert -4.0 < grid.low < 0.0 < grid.high < 6.0


@pytest.mark.slow
def test_a_weighted_path_has_most_steps_where_the_prior_decides():
    prior, _ = isotropic(jnp.zeros(20), 1.0)

    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)

    def grid(**settings):
        smc = SMC(model, num_particles=4, num_steps=6, progress_bar=False, **settings)
        return smc.run(jnp.zeros(2, jnp.uint32), y=np.ones(20, np.float32)).attrs["grid"]

    assert grid() == repr(prior.denoising_error.focus())
    assert grid(weighted=False) == grid(proposal=proposals.Twisted()) == "UniformLogSNR()"
    assert grid(grid=schedules.Karras()) == repr(schedules.Karras())
