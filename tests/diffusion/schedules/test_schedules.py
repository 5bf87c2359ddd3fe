"""Schedules: identities between alpha, sigma, log-SNR and time; grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import schedules
from smcdiff.errors import InputError

SCHEDULES = [
    schedules.OrnsteinUhlenbeck(),
    schedules.VarianceExploding(),
    schedules.LinearBeta(),
    schedules.Cosine(),
]
GRIDS = [
    schedules.UniformLogSNR(),
    schedules.UniformTime(),
    schedules.UniformSqrtAlphaBar(),
    schedules.Karras(),
    schedules.Focused(-2.0, 2.0),
]


def _name(value):
    return type(value).__name__


@pytest.mark.parametrize("schedule", SCHEDULES, ids=_name)
def test_time_inverts_log_snr(schedule):
    times = jnp.linspace(schedule.t_min, schedule.t_max, 50)
    # float32 rounds alpha near 1, which the inverse magnifies at the noisy end of Cosine.
    np.testing.assert_allclose(schedule.time(schedule.log_snr(times)), times, rtol=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=_name)
def test_time_zero_is_noise_free(schedule):
    level = schedule.level(0.0)
    assert level.alpha == 1.0 and level.sigma == 0.0 and jnp.isposinf(level.log_snr)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=_name)
@pytest.mark.parametrize("grid", GRIDS, ids=_name)
def test_grid_decreases_from_t_max_to_zero(schedule, grid):
    levels = grid(schedule, 12)
    times = levels.time
    np.testing.assert_array_equal(levels.index, np.arange(13))
    assert jnp.all(jnp.diff(times) < 0)
    np.testing.assert_allclose(times[0], schedule.t_max, rtol=1e-3)
    np.testing.assert_allclose(times[-2], schedule.t_min, rtol=1e-2)
    assert times[-1] == 0.0 and levels.is_clean[-1] and not jnp.any(levels.is_clean[:-1])
    for got, expected in zip(levels[:4], schedule.level(times)[:4], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES[::2] + SCHEDULES[3:], ids=_name)
def test_variance_preserving(schedule):
    times = jnp.linspace(schedule.t_min, schedule.t_max, 20)
    np.testing.assert_allclose(
        schedule.alpha(times) ** 2 + schedule.sigma(times) ** 2, 1, rtol=1e-5
    )


def test_default_grid_is_uniform_in_log_snr():
    schedule = schedules.Cosine()
    log_snr = schedules.UniformLogSNR()(schedule, 20).log_snr[:-1]
    np.testing.assert_allclose(jnp.diff(log_snr), jnp.diff(log_snr)[0], rtol=1e-2)


def test_a_schedule_of_ones_own():
    """Alpha and sigma are enough: the inverse of the log-SNR is found by bisection."""

    class Rectified(schedules.Schedule):
        t_min: float = 0.01
        t_max: float = 0.99

        def alpha(self, t):
            return 1.0 - t

        def sigma(self, t):
            return t

    schedule = Rectified(t_max=0.9)
    times = jnp.linspace(0.01, 0.9, 20)
    np.testing.assert_allclose(schedule.time(schedule.log_snr(times)), times, rtol=1e-4)
    levels = jax.jit(lambda schedule: schedules.UniformLogSNR()(schedule, 8))(schedule)
    np.testing.assert_allclose(levels.time[0], 0.9, rtol=1e-4)
    assert len(jax.tree.leaves(schedule)) == 2


def test_linear_beta_matches_the_discrete_ddpm():
    """Ho et al. (2020): beta from 1e-4 to 0.02; alpha-bar to the O(1/1000) of the limit."""
    alpha_bar = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
    times = jnp.arange(1, 1001) / 1000
    np.testing.assert_allclose(
        2 * np.log(schedules.LinearBeta().alpha(times)), np.log(alpha_bar), rtol=2e-2, atol=1e-4
    )


def test_one_step_is_refused():
    with pytest.raises(InputError, match="at least 2 steps"):
        schedules.UniformLogSNR()(schedules.Cosine(), 1)


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.Cosine(t_max=1.0),
        schedules.OrnsteinUhlenbeck(t_min=0.0),
        schedules.OrnsteinUhlenbeck(t_min=2.0, t_max=1.0),
        schedules.VarianceExploding(t_max=float("inf")),
    ],
)
@pytest.mark.parametrize("grid", GRIDS, ids=_name)
def test_ends_that_no_grid_can_have(schedule, grid):
    with pytest.raises(InputError, match="log-SNR .* at t_max and .* at t_min; they must be"):
        grid(schedule, 4)


def test_a_grid_of_a_schedule_that_reads_what_has_changed():
    """No program of the schedule of before is kept."""
    power = [1.0]

    class Own(schedules.Schedule):
        t_min: float = 0.005
        t_max: float = 0.995

        def alpha(self, t):
            return (1.0 - t) ** power[0]

        def sigma(self, t):
            return t

    first = schedules.UniformLogSNR()(Own(), 5)
    power[0] = 3.0
    second = schedules.UniformLogSNR()(Own(), 5)
    for levels, exponent in ((first, 1.0), (second, 3.0)):
        np.testing.assert_allclose(levels.alpha, (1.0 - levels.time) ** exponent, rtol=1e-4)
        np.testing.assert_allclose(np.diff(levels.log_snr[:-1], 2), 0.0, atol=1e-2)


def test_focused_steps_are_fine_where_they_count():
    schedule = schedules.Cosine()
    log_snr = np.asarray(schedules.Focused(-3.0, 4.0, share=0.8)(schedule, 101).log_snr[:-1])
    fine = (log_snr >= -3.0 - 1e-3) & (log_snr <= 4.0 + 1e-3)
    assert abs(fine.sum() - 81) <= 1
    np.testing.assert_allclose(np.diff(log_snr[fine]), 7.0 / 80.0, rtol=0.05)
    # Outside, one width on both sides, however far the ends of the schedule are.
    outer = np.concatenate([np.diff(log_snr[log_snr < -3.1]), np.diff(log_snr[log_snr > 4.1])])
    np.testing.assert_allclose(outer, outer.mean(), rtol=0.05)


def test_focused_beyond_the_schedule_is_uniform():
    schedule = schedules.Cosine()
    focused = schedules.Focused(-50.0, 50.0)(schedule, 12)
    uniform = schedules.UniformLogSNR()(schedule, 12)
    np.testing.assert_allclose(focused.time, uniform.time, rtol=1e-4)


@pytest.mark.parametrize(("low", "high"), [(1.0, -1.0), (0.0, float("inf")), (2.0, 2.0)])
def test_focused_wants_an_interval(low, high):
    with pytest.raises(InputError, match="they must be finite and increase"):
        schedules.Focused(low, high)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_focused_wants_a_share(share):
    with pytest.raises(InputError, match=r"must lie in \(0, 1\)"):
        schedules.Focused(-1.0, 1.0, share)
