"""The report names what is wrong, and only that."""

import numpy as np
import pytest
import scipy.stats

from smcdiff import Posterior
from smcdiff.results.diagnosis import diagnose, pareto_shape


def posterior(log_weights=None, **fields):
    """Healthy chains (two of 100 particles) of three steps, but for what is given."""
    log_weights = np.zeros((2, 100)) if log_weights is None else log_weights
    log_weights = log_weights - np.log(np.exp(log_weights).sum(1, keepdims=True))
    chains, particles = log_weights.shape
    steps = np.full((chains, 4), 90.0)
    healthy = {
        "samples": {"x": np.zeros((chains, particles, 3))}, "log_weights": log_weights,
        "log_evidence": np.linspace(-1.0, -1.1, chains), "ess": steps,
        "founders": np.zeros((chains, particles), int),
        "num_founders": np.full((chains, 4), 80), "log_evidence_increments": steps,
        "resampled": np.zeros((chains, 4), bool), "log_snr": np.array([-8.0, -2.0, 3.0, np.inf]),
        "pointwise_log_likelihood": {}, "observed": {}, "weighted": True,
    }  # fmt: skip
    return Posterior(**{**healthy, **fields})


def low_ess():
    ess = np.full((2, 4), 90.0)
    ess[1, 2:] = 5.0
    return posterior(ess=ess)


def collapse():
    ess = np.full((2, 4), 90.0)
    ess[0, -1] = 12.0
    return posterior(ess=ess)


def one_weight():
    log_weights = np.zeros((2, 100))
    log_weights[0, 3] = 4.0
    return posterior(log_weights)


def heavy_tail():
    uniforms = np.random.default_rng(0).uniform(size=(2, 1000))
    return posterior(-1.2 * np.log(uniforms))


CASES = {
    "ESS fell to 5.0% at step 2 (log-SNR 3.0)": low_ess,
    "last step cut the ESS": collapse,
    "founders survive": lambda: posterior(num_founders=np.full((2, 4), 3)),
    "one particle carries": one_weight,
    "Pareto k-hat": heavy_tail,
    "differs between chains by 3.5 nat": lambda: posterior(log_evidence=np.array([-1.0, -6.0])),
}


def test_healthy_run_has_no_findings():
    diagnosis = diagnose(posterior())
    assert diagnosis.findings == ()
    assert "no sign of degeneracy" in str(diagnosis)


@pytest.mark.parametrize("message", CASES)
def test_finding(message):
    findings = diagnose(CASES[message]()).findings
    assert any(message in finding for finding in findings)
    assert all("try" in finding or "check" in finding or "rest" in finding for finding in findings)


def test_evidence_error_without_resampling_is_that_of_a_mean():
    log_weights = 0.5 * np.random.default_rng(0).standard_normal((1, 100))
    weights = np.exp(log_weights[0])
    found = diagnose(posterior(log_weights, founders=np.arange(100)[None]))
    expected = weights.std(ddof=1) / weights.mean() / 100**0.5
    assert found.evidence_error == pytest.approx(expected, rel=1e-3)
    assert f"unknown between chains, {expected:.2f} nat from the founders" in str(found)
    few = np.full((2, 4), 3)
    assert np.isnan(diagnose(posterior(num_founders=few)).evidence_error)
    assert "unknown from the founders" in str(diagnose(posterior(num_founders=few)))


@pytest.mark.parametrize("shape", [0.3, 0.7, 1.1])
def test_pareto_shape_of_known_tails(shape):
    """Weights U^-k have Pareto tails of shape k; the fit of 300 tail points is good to 0.1."""
    weights = scipy.stats.genpareto(shape, loc=1.0).rvs(10_000, random_state=1)
    assert abs(pareto_shape(np.log(weights)) - shape) < 3 * (1 + shape) / np.sqrt(300)


def test_pareto_shape_of_degenerate_inputs():
    assert np.isnan(pareto_shape(np.zeros(10)))
    assert pareto_shape(np.zeros(100)) == -np.inf
