"""The test of uniform ranks is exact, and its band holds the whole curve as often as it says."""

import itertools
import math

import numpy as np
import pytest

from smcdiff.calibration._uniformity import band, p_value

CHANCES = (0.2, 0.5, 0.3)


def tables(total):
    """All counts of three cells, and their probabilities."""
    for counts in itertools.product(range(total + 1), repeat=3):
        if sum(counts) == total:
            ways = math.factorial(total) / math.prod(map(math.factorial, counts))
            yield np.array(counts), ways * math.prod(np.power(CHANCES, counts))


def test_p_value_is_the_probability_of_one_as_small():
    found = [(p_value(counts, CHANCES), chance) for counts, chance in tables(6)]
    for level, _ in found:
        as_small = sum(chance for p, chance in found if p <= level + 1e-9)
        assert as_small == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize("total", [20, 300])
def test_false_positive_rate(total):
    chances = (0.05,) * 20
    counts = np.random.default_rng(0).multinomial(total, chances, size=1000)
    found = np.array([p_value(row, chances) for row in counts])
    for level in (0.01, 0.1):  # at most, and nearly: the statistic takes few values of 20 ranks
        assert np.mean(found <= level) < level + 3 * np.sqrt(level / 1000)
    assert np.mean(found <= 0.1) > 0.05


def test_band_holds_whole_curves():
    chances, total = (0.05,) * 20, 100
    low, high = band(total, chances, 0.9)
    counts = np.random.default_rng(1).multinomial(total, chances, size=2000)
    below = np.cumsum(counts, axis=1)[:, :-1] / total
    inside = np.mean(np.all((below >= low - 1e-9) & (below <= high + 1e-9), axis=1))
    assert 0.88 < inside < 0.94
    assert np.all(low <= np.cumsum(chances)[:-1]) and np.all(high >= np.cumsum(chances)[:-1])


def test_few_draws_see_what_is_plain():
    assert p_value(np.array([50, 0, 0, 50]), (0.25,) * 4) < 1e-6
    assert p_value(np.array([0, 50, 50, 0]), (0.25,) * 4) < 1e-6
    assert p_value(np.zeros(4, int), (0.25,) * 4) == 1.0
