"""Weightings: the levels that are drawn have the density that the weight promises."""

import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import priors, schedules
from smcdiff.training._weighting import LogNormal, MinSNR, Uniform, draw_times

SCHEDULE = schedules.Cosine(t_min=0.004, t_max=0.996)
UNIFORMS = (jnp.arange(4000) + 0.5) / 4000


def _drawn(weighting, prediction=None):
    prediction = priors.VPrediction() if prediction is None else prediction
    return np.asarray(draw_times(UNIFORMS, weighting, prediction, SCHEDULE))


def test_uniform_is_uniform():
    expected = SCHEDULE.t_min + (SCHEDULE.t_max - SCHEDULE.t_min) * UNIFORMS
    np.testing.assert_allclose(_drawn(Uniform()), expected, atol=1e-5)


def test_log_normal_has_its_moments():
    log_snr = np.asarray(SCHEDULE.log_snr(jnp.asarray(_drawn(LogNormal(-2.0, 1.5)))))
    np.testing.assert_allclose([log_snr.mean(), log_snr.std()], [-2.0, 1.5], atol=0.02)
    mixed = _drawn(LogNormal(-2.0, 1.5, uniform=0.4))
    # Below t = 0.1 (log-SNR above 3.7) only the uniform share has anything to draw.
    np.testing.assert_allclose(np.mean(mixed < 0.1), 0.4 * 0.097, atol=0.002)


def test_log_normal_far_off_draws_the_levels_next_to_it():
    assert SCHEDULE.log_snr(jnp.asarray(_drawn(LogNormal(20.0, 0.05)))).min() > 9.0


@pytest.mark.parametrize("prediction", [priors.X0Prediction, priors.EpsPrediction])
def test_min_snr_is_one_objective_for_every_target(prediction):
    """Density times the x_0 error that one unit of target error means: min(SNR, 5)."""
    times = _drawn(MinSNR(), prediction())
    counts, edges = np.histogram(times, bins=20, range=(SCHEDULE.t_min, SCHEDULE.t_max))
    middle = SCHEDULE.level(jnp.asarray(0.5 * (edges[1:] + edges[:-1])))
    weight = np.minimum(np.exp(middle.log_snr), 5.0)
    if prediction is priors.EpsPrediction:
        weight = weight / np.exp(middle.log_snr)
    expected = weight / weight.sum() * len(times)
    np.testing.assert_allclose(counts[1:-1], expected[1:-1], rtol=0.15, atol=15)
