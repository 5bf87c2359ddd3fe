"""What of the data the schedule depends on, and the noise levels that follow."""

import numpy as np
import pytest

from smcdiff import InputError, schedules
from smcdiff.training._noise import Noise
from smcdiff.training._statistics import Statistics

RANDOM = np.random.default_rng(0)


def test_norm_and_largest_variance():
    """In data units, from -1 to 1; the largest variance is along (1, 2, 0, ...) / sqrt(5)."""
    direction = np.zeros(12)
    direction[:2] = 1.0, 2.0
    events = 0.3 + RANDOM.normal(size=(2000, 1)) * direction + 0.1 * RANDOM.normal(size=(2000, 12))
    found = Statistics.of("data", events.reshape(-1, 3, 4).astype(np.float32))
    assert found.variance == pytest.approx(5.0 + 0.01, rel=0.1)
    assert found.norm**2 == pytest.approx(12 * 0.09 + 5.0 + 0.12, rel=0.1)
    covariance = np.cov(events.T, bias=True)
    assert found.variance == pytest.approx(np.linalg.eigvalsh(covariance)[-1], rel=1e-4)


def test_pixels_are_in_data_units():
    pixels = RANDOM.integers(0, 2, (500, 8, 8, 1)).astype(np.uint8) * 255
    assert Statistics.of("data", pixels).norm == pytest.approx(8.0, rel=1e-6)


def test_large_events_are_sampled(monkeypatch):
    monkeypatch.setattr("smcdiff.training._statistics._MOST_VALUES", 64 * 10)
    pixels = RANDOM.integers(0, 255, (500, 8, 8, 1)).astype(np.uint8)
    found = Statistics.of("data", pixels)
    assert found.variance > 64 / 12 * 4 / 10  # of ten events, all of it in ten directions
    with pytest.raises(InputError, match="data: all events are the same"):
        Statistics.of("data", np.zeros((5, 8, 8, 1), np.uint8))


def test_levels_that_are_trained_lie_around_those_that_are_sampled():
    for norm in (27.0, 60.0, 1000.0):
        sampled, trained = Noise.of(Statistics(norm, 19.0))
        assert trained.t_min < sampled.t_min and sampled.t_max < trained.t_max < 1.0
    assert Noise.of(Statistics(27.0, 19.0)).sampled == schedules.Cosine()
    usual = Noise.of(Statistics(27.0, 19.0)).trained
    # What the shipped priors were trained with.
    assert np.float32(usual.t_min) == np.float32(0.004)
    assert np.float32(usual.t_max) == np.float32(0.996)
