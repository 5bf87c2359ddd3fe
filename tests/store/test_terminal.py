"""Where a schedule may end: draws are off by what the formula says, and cosines end in time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, priors, schedules
from smcdiff.store._terminal import check_terminal, cosine_for


def test_draws_are_off_by_the_bias():
    """One coordinate, N(6, 0.25^2), sampled from noise alone where a quarter is signal."""
    mean, std, ratio = 6.0, 0.25, 0.25
    end = schedules.Cosine().time(2.0 * jnp.log(ratio))
    schedule = schedules.Cosine(t_max=float(end))

    def denoise(x, t):
        level = schedule.level(t)
        gain = level.alpha * std**2 / (level.alpha**2 * std**2 + level.sigma**2)
        return mean + gain * (x - level.alpha * mean)

    prior = priors.DiffusionPrior(denoise, schedule, (1,), data_variance=std**2, num_steps=100)
    draws = np.asarray(jax.jit(lambda key: prior.sample(key, (10_000,)))(jax.random.key(0)))
    # shift = ratio |mean|, bias = shift ratio std, in standard deviations of the data.
    bias = ratio * mean * ratio * std
    assert bias == pytest.approx(0.094, abs=1e-3)
    off = (mean - draws.mean()) / std  # known to 0.01
    assert off == pytest.approx(bias / (1 + (ratio * std) ** 2), abs=0.03)


@pytest.mark.parametrize(
    ("norm", "variance"), [(27.0, 19.0), (54.0, 100.0), (88.2, 688.0), (220.0, 17_700.0)]
)
def test_the_cosine_ends_where_little_is_left(norm, variance):
    """Digits, dark and white grounds of 64 x 64, photographs of 256 x 256 in colours."""
    schedule = cosine_for(norm, variance)
    check_terminal("data", schedule, norm, variance)
    ratio = float(jnp.exp(0.5 * schedule.log_snr(schedule.t_max)))
    assert ratio * norm < 0.501
    assert ratio**2 * norm * variance**0.5 < 0.0501
    # No later than it must: the default where that serves.
    usual = schedules.Cosine()
    assert schedule == usual if norm == 27.0 else schedule.t_max > usual.t_max
    prior = priors.DiffusionPrior(lambda x, t: 0 * x, schedule, (3,), data_variance=variance)
    assert prior.event_shape == (3,)  # which has a limit of its own


def test_schedules_that_end_too_early():
    early = schedules.Cosine(t_max=0.5)
    with pytest.raises(InputError, match=r"^prior: at t_max the signal.* raise the schedule's t_m"):
        check_terminal("prior", early, 27.0, 19.0)
    # Hardly any variance, so that draws are not off; but the network was never asked there.
    with pytest.raises(InputError, match="signal is still up to 2.70 of the noise"):
        check_terminal("prior", schedules.VarianceExploding(t_max=10.0), 27.0, 1e-6)
    # Images of 64 x 64 on a dark ground under the usual schedule: off by a twentieth.
    check_terminal("prior", schedules.Cosine(), 54.0, 100.0)
