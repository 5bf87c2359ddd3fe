"""Weighted averages, quantiles and effective numbers against closed forms."""

import numpy as np
import pytest

from smcdiff.results import _weighted as weighted


def test_quantiles_follow_lopsided_weights():
    """Draws of N(0, 4) count as N(1, 1) by their weights; its quantiles are known."""
    x = 2.0 * np.random.default_rng(0).standard_normal(100_000)
    weights = np.exp(-0.5 * (x - 1.0) ** 2 + 0.125 * x**2)
    weights /= weights.sum()
    found = weighted.quantiles(x, weights, (0.05, 0.5, 0.95))
    # The effective number is 50,000: errors of 2.1 / sqrt(50,000) = 0.01 in the tails.
    np.testing.assert_allclose(found, [1.0 - 1.645, 1.0, 1.0 + 1.645], atol=0.04)
    assert abs(np.quantile(x, 0.05) - found[0]) > 2.0  # what leaving the weights out would give


def test_quantiles_by_hand():
    values = np.array([[3.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    weights = np.array([0.9, 0.06, 0.04])
    # First entry: 1 holds 0.06, 2 reaches 0.10, 3 the rest. Second: 1 holds 0.9, 2 reaches 0.96.
    found = weighted.quantiles(values, weights, (0.05, 0.08, 0.95))
    np.testing.assert_array_equal(found, [[1.0, 1.0], [2.0, 1.0], [3.0, 2.0]])


def test_mean_and_deviation():
    values = np.array([[0.0, 1.0], [4.0, 1.0]])
    weights = np.array([0.75, 0.25])
    np.testing.assert_allclose(weighted.mean(values, weights), [1.0, 1.0])
    np.testing.assert_allclose(weighted.std(values, weights), [np.sqrt(3.0), 0.0])
    flags = np.array([True, False])
    assert weighted.mean(flags, weights) == 0.75
    np.testing.assert_allclose(weighted.std(flags, weights), np.sqrt(3.0) / 4)


def test_log_mean_evidence():
    assert weighted.log_mean_evidence(np.log([1.0, 3.0])) == pytest.approx(np.log(2.0))
    assert weighted.log_mean_evidence(np.array([-5000.0, -5000.0])) == pytest.approx(-5000.0)


def test_effective_numbers():
    weights = np.array([0.5, 0.25, 0.25])
    assert weighted.effective_number(weights) == pytest.approx(8 / 3)
    assert weighted.effective_founders(weights, np.array([7, 2, 2])) == pytest.approx(2.0)


def test_effective_draws_of_equal_independent_draws_are_their_number():
    values = np.random.default_rng(0).standard_normal((200, 3))
    found = weighted.precision(values, np.full(200, 1 / 200), np.arange(200)).draws
    np.testing.assert_allclose(found, 200.0)


def test_effective_draws_count_copies_once():
    """200 draws, four copies of each, in any order: 200, though the weights say 800."""
    generator = np.random.default_rng(0)
    order = generator.permutation(800)
    values = np.repeat(generator.standard_normal((200, 2)), 4, axis=0)[order]
    founders = np.repeat(np.arange(200), 4)[order]
    found = weighted.precision(values, np.full(800, 1 / 800), founders).draws
    np.testing.assert_allclose(found, 200.0)


def test_errors_are_the_spread_of_importance_sampling():
    """Of 2,000 weighted means and standard deviations, which they must match to a tenth."""
    generator = np.random.default_rng(0)
    found, told = [], []
    for _ in range(2000):
        x = generator.standard_normal(400)
        weights = np.exp(0.7 * x)  # tilts N(0, 1) to N(0.7, 1)
        weights /= weights.sum()
        found.append((weighted.mean(x, weights), weighted.std(x, weights)))
        told.append(weighted.precision(x, weights, np.arange(400)))
    mean_error, std_error, draws = np.transpose(told)
    spread = np.var(found, axis=0)
    assert np.mean(mean_error**2) == pytest.approx(spread[0], rel=0.1)
    assert np.mean(std_error**2) == pytest.approx(spread[1], rel=0.1)
    assert np.mean(1.0 / draws) == pytest.approx(spread[0], rel=0.1)


def test_effective_draws_of_a_constant_are_unknown():
    values = np.stack([np.ones(50), np.arange(50.0)], axis=1)
    found = weighted.precision(values, np.full(50, 1 / 50), np.arange(50)).draws
    assert np.isnan(found[0]) and found[1] == pytest.approx(50.0)


@pytest.mark.parametrize("chains", [4, 16])
@pytest.mark.parametrize("deviation", [0.1, 1.0])
def test_error_of_the_mean_evidence(chains, deviation):
    """Against the spread over 2,000 sets of chains with normal log evidences."""
    drawn = deviation * np.random.default_rng(0).standard_normal((2000, chains))
    none = np.full(chains, np.nan)
    errors = [weighted.log_mean_evidence_se(row, none) for row in drawn]
    actual = np.std([weighted.log_mean_evidence(row) for row in drawn])
    assert 0.85 < np.nanmean(errors) / actual < 1.15
    assert np.isnan(weighted.log_mean_evidence_se(30 * drawn[0] / deviation, none))
