"""Leave-one-out densities against the closed form."""

import dataclasses
import warnings

import arviz
import numpy as np
import pytest
import scipy.stats

from smcdiff import DegeneracyWarning, InputError
from smcdiff.diagnostics.leave_one_out import leave_one_out
from tests.results.arviz_versions import elpd
from tests.results.records import record

CORRELATION, NOISE, SIZE = 0.6, 1.5, 6
COVARIANCE = CORRELATION ** np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE)))
MARGINAL = COVARIANCE + NOISE**2 * np.eye(SIZE)
Y = np.random.default_rng(1).multivariate_normal(np.zeros(SIZE), MARGINAL)


def exact():
    """log p(y_i given the others) of a Gaussian, from its precision matrix."""
    precision = np.linalg.inv(MARGINAL)
    variance = 1.0 / np.diag(precision)
    mean = Y - variance * (precision @ Y)
    return scipy.stats.norm(mean, np.sqrt(variance)).logpdf(Y)


def weighted(particles):
    """Draws of the prior, weighted by the likelihood."""
    generator = np.random.default_rng(0)
    x = generator.multivariate_normal(np.zeros(SIZE), COVARIANCE, (2, particles))
    terms = scipy.stats.norm(x, NOISE).logpdf(Y)
    total = terms.sum(-1)
    return record(
        total,
        samples={"x": x},
        log_evidence=np.log(np.exp(total).mean(1)),
        pointwise_log_likelihood={"y": terms},
        observed={"y": Y},
    )


def test_closed_form():
    """Of 10,000 weighted draws of the prior; those of 100 other keys are within 0.022."""
    found = leave_one_out(weighted(5000))
    np.testing.assert_allclose(found.entries, exact(), atol=0.03)
    assert found.elpd == pytest.approx(found.entries.sum())
    assert found.se == pytest.approx(np.sqrt(SIZE) * exact().std(ddof=1), abs=0.05)
    assert np.all(found.pareto_k < 0.7)


def test_equal_weights_are_arvizs_own():
    posterior = weighted(500)
    draws = posterior.equal_indices()
    rows = np.arange(2)[:, None]
    terms = {"y": posterior.pointwise_log_likelihood["y"][rows, draws]}
    equal = record(
        np.zeros((2, 500)), pointwise_log_likelihood=terms, log_evidence=np.zeros(2),
        observed={"y": Y},
    )  # fmt: skip
    found, theirs = leave_one_out(equal, "y"), arviz.loo(equal.to_arviz(), reff=1.0, pointwise=True)
    assert found.elpd == pytest.approx(elpd(theirs), abs=0.02)
    np.testing.assert_allclose(found.pareto_k, theirs.pareto_k, atol=0.15)


def test_particles_without_weight_count_nothing():
    terms = np.random.default_rng(0).normal(-1.0, 0.1, (1, 200, 3))
    log_weights = np.where(np.arange(200) < 100, 0.0, -np.inf)[None]
    some = record(log_weights, pointwise_log_likelihood={"y": terms})
    alone = record(np.zeros((1, 100)), pointwise_log_likelihood={"y": terms[:, :100]})
    np.testing.assert_allclose(leave_one_out(some).entries, leave_one_out(alone).entries)


def test_masked_entries_count_nothing():
    posterior = weighted(100)
    terms = posterior.pointwise_log_likelihood["y"].copy()
    terms[..., 2] = 0.0
    masked = leave_one_out(dataclasses.replace(posterior, pointwise_log_likelihood={"y": terms}))
    assert np.isnan(masked.entries).tolist() == [False, False, True, False, False, False]
    assert masked.elpd == pytest.approx(np.delete(masked.entries, 2).sum())
    assert np.isfinite(masked.se)


def test_a_collapsed_run_is_told():
    """Ten particles have all the weight of 200, and leave no tail to fit; whole runs are silent."""
    terms = np.random.default_rng(0).normal(-1.0, 0.1, (1, 200, 3))
    log_weights = np.where(np.arange(200) < 10, 0.0, -np.inf)[None]
    collapsed = record(log_weights, pointwise_log_likelihood={"y": terms})
    with pytest.warns(DegeneracyWarning, match="cannot be told of 3 and .* worth 10.0 particles"):
        assert np.isnan(leave_one_out(collapsed).pareto_k).all()
    few = record(
        np.random.default_rng(1).normal(0.0, 6.0, (1, 200)), pointwise_log_likelihood={"y": terms}
    )
    with pytest.warns(DegeneracyWarning, match="above 0.7 for 3"):
        leave_one_out(few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        leave_one_out(weighted(500))


def test_two_sites_are_pooled_or_named():
    posterior = weighted(500)
    terms = posterior.pointwise_log_likelihood["y"]
    both = dataclasses.replace(
        posterior, pointwise_log_likelihood={"a": terms[..., :2], "b": terms[..., 2:]}
    )
    whole, first, second = leave_one_out(both), leave_one_out(both, "a"), leave_one_out(both, "b")
    np.testing.assert_allclose(whole.entries, [*first.entries, *second.entries])
    assert whole.elpd == pytest.approx(first.elpd + second.elpd)


def test_bad_input():
    posterior = weighted(100)
    with pytest.raises(InputError, match=r"'z' is none of the observed sites \['y'\]"):
        leave_one_out(posterior, "z")
    joint = record(pointwise_log_likelihood={"y": np.zeros((2, 100))})
    with pytest.raises(InputError, match="less than two entries.*leave .to_event"):
        leave_one_out(joint)
    with pytest.raises(InputError, match="weights were off"):
        leave_one_out(record(weighted=False, pointwise_log_likelihood={"y": np.zeros((2, 100, 3))}))
