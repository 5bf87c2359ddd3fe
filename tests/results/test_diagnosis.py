"""The report names what is wrong, and only that; the warning speaks where nothing is right."""

import pathlib
import warnings

import numpy as np
import pytest

import smcdiff
from smcdiff import DegeneracyWarning
from smcdiff.results._diagnosis import diagnose, warn_if_degenerate
from tests.results.records import importance, record


def with_ess(chain, step, value, **fields):
    ess = np.full((2, 4), 90.0)
    ess[chain, step:] = value
    return record(ess=ess, **fields)


def with_steps(*kept, particles=100):
    """Four chains of which one begins every step with all particles and keeps these shares."""
    ess = np.full((4, len(kept) + 1), 0.9 * particles)
    ess[2, 1:] = particles * np.array(kept)
    log_snr = np.append(np.linspace(-8.0, 4.0, len(kept)), np.inf)
    return record(
        np.zeros((4, particles)), ess=ess, log_snr=log_snr, resampled=np.ones(ess.shape, bool),
        num_founders=np.full(ess.shape, 50), log_evidence_increments=np.zeros(ess.shape),
    )  # fmt: skip


def one_weight():
    log_weights = np.zeros((2, 100))
    log_weights[0, 3] = 4.0
    return record(log_weights)


def heavy_tail():
    return record(-1.2 * np.log(np.random.default_rng(0).uniform(size=(2, 1000))))


CASES = {
    "ESS fell to 5.0% at step 2 (log-SNR 3.0)": lambda: with_ess(1, 2, 5.0),
    # From level 1 of -8, -5, -2, 1 and 4, where the first of them begins, to level 4.
    "at 3 of 5 steps, between log-SNR -5.0 and 4.0": lambda: with_steps(0.5, 0.3, 0.3, 0.3, 0.5),
    "last step cut the ESS": lambda: with_ess(0, 3, 12.0),
    "founders survive": lambda: record(num_founders=np.full((2, 4), 3)),
    "founders survive (7)": lambda: record(np.zeros((2, 12)), num_founders=np.full((2, 4), 7)),
    "one particle carries": one_weight,
    "Pareto k-hat": heavy_tail,
    "differs between chains by 3.5 nat": lambda: record(log_evidence=np.array([-1.0, -6.0])),
    "site 'x' lie 15 prior widths": lambda: record(prior_widths=np.full((2, 100), 15.0)),
    "draws may be used; do not compare models": lambda: record(
        log_evidence=np.array([-1.0, -6.0]), chains_alike=True
    ),
}


@pytest.mark.parametrize("chains", [1, 3, 4])
def test_healthy_run_has_no_findings_but_tells_what_it_cannot_know(chains):
    diagnosis = diagnose(record(np.zeros((chains, 100))))
    assert diagnosis.findings == ()
    assert "no sign of degeneracy" in str(diagnosis)
    line = "- what a run has missed only others show: compare log_evidence of num_chains=4"
    assert (line in str(diagnosis).splitlines()) == (chains < 4)


@pytest.mark.parametrize("particles", [1, 4, 9])
def test_nothing_can_be_told_of_few_particles(particles):
    few = record(np.zeros((2, particles)), num_founders=np.full((2, 4), particles))
    (finding,) = diagnose(few).findings
    assert finding.startswith(f"{particles} particle") and "nothing can be told" in finding
    assert "try more particles" in finding
    alike = {"chains_alike": True, "log_evidence": np.zeros(2)}
    told = diagnose(record(np.zeros((2, particles)), num_founders=few.num_founders, **alike))
    assert len(told.findings) == (particles < 5)
    assert all("try more chains" in finding for finding in told.findings)


def test_few_long_steps_or_a_last_one_or_many_particles_are_no_finding():
    assert diagnose(with_steps(0.3, 0.3, 0.9, 0.9, 0.3)).findings == ()
    assert diagnose(with_steps(*[0.3] * 3, *[0.9] * 40)).findings == ()
    assert diagnose(with_steps(0.5, 0.3, 0.3, 0.3, 0.5, particles=1000)).findings == ()


@pytest.mark.parametrize("message", CASES)
def test_finding(message):
    findings = diagnose(CASES[message]()).findings
    assert any(message in finding for finding in findings)
    assert all("try" in finding or "check" in finding or "rest" in finding for finding in findings)


def test_the_cure_is_more_steps_only_where_that_was_measured_to_help():
    """Under nonlinear likelihoods more steps made it worse."""
    finding = next(f for f in diagnose(with_ess(1, 2, 5.0)).findings if "the ESS fell" in f)
    assert "try, in this order, more particles, in 4 chains or more; resampling later" in finding
    assert finding.endswith(
        "More steps help where the observation is linear-Gaussian, and may harm elsewhere"
    )
    alike = diagnose(with_ess(1, 2, 5.0, chains_alike=True)).findings
    assert any("in this order, more chains;" in f for f in alike)


def test_moves_are_not_advised_to_what_is_held_to_a_path():
    few = np.full((2, 4), 3)
    (finding,) = diagnose(record(num_founders=few, chains_alike=True)).findings
    assert "founders survive" in finding and "Rejuvenated" not in finding
    assert "Rejuvenated" in diagnose(record(num_founders=few)).findings[0]


def test_chains_that_count_alike_are_judged_together():
    """64 chains of 4, each of which has one founder and one weight: 64 of both in all."""
    log_weights = np.where(np.arange(4) == 0, 0.0, -50.0) * np.ones((64, 1))
    fields = {"num_founders": np.ones((64, 4), int), "ess": np.ones((64, 4))}
    alike = diagnose(record(log_weights, chains_alike=True, log_evidence=np.zeros(64), **fields))
    assert alike.founders == 64 and alike.largest_weight == pytest.approx(1 / 64)
    assert alike.findings == () and "64.0 of all chains, which count alike" in str(alike)
    few = {name: value[:3] for name, value in fields.items()}
    three = diagnose(record(log_weights[:3], chains_alike=True, log_evidence=np.zeros(3), **few))
    assert three.founders == 3
    assert any("few founders survive (3)" in finding for finding in three.findings)
    assert any("33% of the weight" in finding for finding in three.findings)


def test_shape_that_is_unknown_in_one_chain_is_that_of_the_other():
    """One weight that is all of a chain leaves no tail to fit."""
    log_weights = -1.2 * np.log(np.random.default_rng(0).uniform(size=(2, 1000)))
    log_weights[0] = 0.0
    log_weights[0, 0] = 1000.0
    assert diagnose(record(log_weights)).pareto_k > 0.7
    both_unknown = diagnose(record(np.zeros((2, 10))))
    assert np.isnan(both_unknown.pareto_k) and "Pareto k-hat: unknown" in str(both_unknown)


def test_weights_off_is_the_only_finding():
    diagnosis = diagnose(record(weighted=False, log_evidence=np.full(2, np.nan)))
    assert len(diagnosis.findings) == 1 and "weights were off" in str(diagnosis)
    assert not diagnosis.untold and "k-hat" not in str(diagnosis)


def test_error_of_the_log_evidence():
    apart = np.array([-1.0, -1.2, -0.9, -1.1])
    four = record(np.zeros((4, 100)), log_evidence=apart)
    found = diagnose(four)
    assert found.evidence_error == pytest.approx(np.std(apart, ddof=1) / 2, rel=0.02)
    assert f"log evidence: -1.04 +- {found.evidence_error:.2f};" in str(found)
    two = record(log_evidence=np.zeros(2), log_evidence_se=np.array([0.3, 0.4]))
    assert diagnose(two).evidence_error == pytest.approx(0.25)
    assert diagnose(two).evidence.endswith("+- 0.25")
    large = record(np.zeros((1, 100)), log_evidence_se=np.array([0.9]))
    assert diagnose(large).evidence.endswith("+- 0.90 or more")


UNTOLD = {
    "12.5 nat apart": {"log_evidence": np.array([0.0, 1.0, 2.0, -10.5])},
    "chains' spread tells it; try 4 chains or more": {"chains_alike": True},
    "2 founders are left; try 4 chains": {"num_founders": np.full((1, 4), 2)},
    "1 founder is left": {"num_founders": np.full((1, 4), 1)},
    "founders of one chain do not tell it; try 4 chains": {},
}


@pytest.mark.parametrize("message", UNTOLD)
def test_error_that_cannot_be_told(message):
    """Of four chains their founders do not matter; of fewer they do."""
    fields = UNTOLD[message]
    chains = len(fields.get("log_evidence", [0.0]))
    untold = record(np.zeros((chains, 100)), log_evidence_se=np.full(chains, np.nan), **fields)
    found = diagnose(untold)
    assert np.isnan(found.evidence_error)
    assert "its error cannot be told: " in found.evidence and message in found.evidence
    assert found.evidence in str(found)


SILENT = {
    "healthy": record,
    "importance sampling": importance,
    "a tenth of the particles": lambda: with_ess(0, 1, 10.0),
    "four particles, of which one leads at three steps": lambda: with_steps(
        0.3, 0.3, 0.3, 0.9, 0.9, particles=4
    ),
    "two long steps": lambda: with_steps(0.3, 0.3, 0.9, 0.9, 0.3),
    "six particles": lambda: with_ess(0, 1, 6.0),
    "particles eight prior widths away": lambda: record(prior_widths=np.full((2, 100), 8.0)),
    "one of a hundred far away": lambda: record(
        prior_widths=np.where(np.arange(100) == 7, 50.0, 1.0) * np.ones((2, 1))
    ),
    "chains 2 nat apart": lambda: record(log_evidence=np.array([-1.0, -3.0])),
    "one chain": lambda: record(np.zeros((1, 100))),
    "weights off": lambda: record(weighted=False, log_evidence=np.full(2, np.nan)),
    "eight particles, two effective": lambda: record(np.zeros((1, 8)), ess=np.full((1, 4), 2.0)),
    "one particle": lambda: record(
        np.zeros((2, 1)), ess=np.ones((2, 4)), num_founders=np.ones((2, 4), int)
    ),
    "two founders": lambda: record(num_founders=np.full((2, 4), 2)),
    "chains that count alike": lambda: record(
        log_evidence=np.array([-300.0, -120.0]), chains_alike=True
    ),
    "one founder of each of ten chains that count alike": lambda: record(
        np.zeros((10, 10)), num_founders=np.ones((10, 4), int), chains_alike=True
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_good_run_ends_in_silence(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_degenerate(SILENT[name]())


def test_bad_run_ends_with_one_warning():
    posterior = with_ess(1, 2, 1.04, log_evidence=np.array([-300.0, -120.0]))
    with pytest.warns(DegeneracyWarning) as caught:
        warn_if_degenerate(posterior)
    (warning,) = caught
    message = str(warning.message)
    assert "fell to 1.0 of 100 particles at step 2 of 3" in message
    assert "180.0 nat apart" in message
    assert (
        "Try more particles, in 4 chains or more, or a proposal" in message
        and "diagnose()" in message
    )
    assert not warning.filename.startswith(str(pathlib.Path(smcdiff.__file__).parent))


@pytest.mark.parametrize(
    ("posterior", "message"),
    [
        (with_ess(0, 3, 4.0), "fell to 4.0 of 100"),
        (record(np.zeros((1, 8)), ess=np.full((1, 4), 1.5)), "fell to 1.5 of 8"),
        (record(log_evidence=np.array([-1.0, -4.0])), "3.0 nat apart"),
        (record(prior_widths=np.full((2, 100), 120.0)), "lie 120 prior widths"),
        (record(prior_widths=np.full((2, 100), 1e30), weighted=False), "lie 1e.30 prior widths"),
        (with_steps(0.9, 0.3, 0.3, 0.3, 0.9), "At 3 of 5 steps one step cut"),
        (record(num_founders=np.array([[100, 50, 9, 5], [90, 7, 2, 1]])), "descend from one"),
    ],
)
def test_each_reason_by_itself(posterior, message):
    with pytest.warns(DegeneracyWarning, match=message) as caught:
        warn_if_degenerate(posterior)
    words = ("fell to", "nat apart", "descend from one", "prior widths", "too long for weights")
    reasons = [word in str(caught[0].message) for word in words]
    assert sum(reasons) == 1


@pytest.mark.parametrize(
    ("proposal", "has_scale"),
    [("DPS(scale=10.0)", True), ("Rejuvenated(proposal=DPS(scale=1.0))", True),
     ("ClassifierFree(...)", True), ("MomentMatched(twist=MomentMatched())", False)],
)  # fmt: skip
def test_a_smaller_scale_is_advised_where_there_is_one(proposal, has_scale):
    away = record(prior_widths=np.full((2, 100), 15.0), attrs={"proposal": proposal})
    (finding,) = (line for line in away.diagnose().findings if "prior widths" in line)
    assert ("smaller scale" in finding) == has_scale


def test_pooled_weights():
    """Two chains of 100 equal weights, the better of which counts e times the other."""
    diagnosis = diagnose(record(log_evidence=np.array([-1.0, -2.0])))
    shares = np.exp([0.0, -1.0]) / (1.0 + np.exp(-1.0))
    chains = 1.0 / np.sum(shares**2)
    assert diagnosis.pooled_ess == pytest.approx(100 * chains)
    assert f"{100 * chains:.1f} of all chains, pooled by their evidence" in str(diagnosis)
    assert any(f"of 2 chains {chains:.1f} count" in finding for finding in diagnosis.findings)
