"""Models by their evidence, against the exact one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import smcdiff
from smcdiff import SMC, InputError, priors
from smcdiff.results import comparison as comparisons
from tests.results.records import record

PRIOR = priors.Gaussian(jnp.zeros(2), 1.0)
Y = jnp.array([0.3, -2.5])


def made(noise, y=Y, **options):
    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)

    options = {"num_particles": 100, "num_steps": 8, "num_chains": 4, **options}
    return SMC(model, progress_bar=False, **options)


NOISES = {"low": 0.1, "right": 1.5, "high": 9.0}


@pytest.fixture(scope="module")
def comparison():
    return smcdiff.compare({name: made(noise) for name, noise in NOISES.items()}, y=Y)


def test_against_the_exact_evidence(comparison):
    """Within 4 of the standard errors that the comparison tells, which are of some hundredths."""
    exact = {n: np.sum(stats.norm.logpdf(Y, 0, np.hypot(1, s))) for n, s in NOISES.items()}
    assert comparison.names == ("right", "low", "high")
    off = np.abs(comparison.log_evidence - [exact[name] for name in comparison.names])
    assert np.all(off < 4.0 * comparison.log_evidence_se + 1e-3)
    assert np.all(comparison.log_evidence_se < 0.05)
    total = sum(np.exp(value) for value in exact.values())
    for name, probability in comparison.probabilities.items():
        np.testing.assert_allclose(probability, np.exp(exact[name]) / total, rtol=0.15)
    factor, error = comparison.log_bayes_factor("low", "right")
    assert abs(factor - (exact["low"] - exact["right"])) < 4.0 * error + 1e-3
    text = str(comparison)
    assert text.index("right") < text.index("low") < text.index("high")


def test_errors_become_intervals(comparison):
    unsure = dataclasses.replace(comparison, log_evidence_se=np.array([0.3, 0.4, 0.0]))
    assert unsure.log_bayes_factor("right", "low")[1] == pytest.approx(0.5)
    low, high = unsure.probability_interval()["right"]
    # The odds of the two best ones: log-normal with a standard deviation of 0.5.
    odds = np.exp(unsure.log_evidence[0] - unsure.log_evidence[1] + 1.645 * 0.5 * np.array([-1, 1]))
    rest = unsure.probabilities["high"]
    np.testing.assert_allclose([low, high], odds / (1 + odds) * (1 - rest), rtol=0.05)
    unknown = dataclasses.replace(comparison, log_evidence_se=np.array([np.nan, 0.1, 0.1]))
    unknown = dataclasses.replace(unknown, reach=np.array([100.0, 0.0, 0.0]))
    assert np.isnan(unknown.probability_interval()["low"]).all() and "?" in str(unknown)


def test_a_hopeless_model_hides_no_other(comparison):
    """Its error cannot be told; it would have to be off by more than it may be to matter."""
    names = (*comparison.names, "hopeless")

    def with_one(below, reach):
        return dataclasses.replace(
            comparison, names=names,
            log_evidence=np.append(comparison.log_evidence, comparison.log_evidence[0] - below),
            log_evidence_se=np.append(comparison.log_evidence_se, np.nan),
            reach=np.append(comparison.reach, reach), prior=np.full(4, 0.25),
            remarks={"hopeless": "its error cannot be told"},
        )  # fmt: skip

    far = with_one(977.0, 100.0)
    intervals = far.probability_interval()
    assert np.isnan(intervals.pop("hopeless")).all()
    for name, ends in comparison.probability_interval().items():
        np.testing.assert_allclose(intervals[name], ends, rtol=1e-2, atol=1e-12)
    assert "taken to be at most 100 nat off; it would have to be 977.0 nat higher" in " ".join(
        str(far).split()
    )
    for near in (with_one(80.0, 100.0), with_one(977.0, np.inf)):
        assert all(np.isnan(ends).all() for ends in near.probability_interval().values())


def test_how_far_an_evidence_without_an_error_may_be_off():
    """The square of four times the distance between four chains; fewer tell nothing."""
    fine = record(np.zeros((4, 100)), log_evidence=np.array([0.0, 0.1, 0.0, -0.1]))
    apart = record(np.zeros((4, 100)), log_evidence=np.array([-930.0, -912.0, -900.0, -905.0]))
    few = record(
        np.zeros((1, 100)), log_evidence=np.array([-900.0]), log_evidence_se=np.array([np.nan])
    )
    found = smcdiff.compare({"apart": apart, "fine": fine, "few": few})
    reach = dict(zip(found.names, found.reach.tolist(), strict=True))
    assert reach == {"fine": 0.0, "few": np.inf, "apart": 14400.0}


@pytest.mark.parametrize("width", [20.0, 100.0])
def test_few_evidences_are_off_by_more_than_their_reach(width):
    """Of log-normal weights, of which the largest count; 2 % of 400 runs are 8, and 3 errors 17."""
    logs = width * np.random.default_rng(0).standard_normal((400, 4, 1000))
    largest = logs.max(axis=2, keepdims=True)
    chains = np.log(np.mean(np.exp(logs - largest), axis=2)) + largest[..., 0]
    off = width**2 / 2 - (np.logaddexp.reduce(chains, axis=1) - np.log(4.0))
    runs = [record(np.zeros((4, 100)), log_evidence=log_evidence) for log_evidence in chains]
    # 0 is of those whose error is told.
    reach = np.array([comparisons._reach(run) for run in runs])
    untold = reach > 0.0
    assert untold.sum() > 300
    assert np.sum(off[untold] > reach[untold]) < 17


@pytest.mark.slow
def test_prior_probabilities(comparison):
    runs = {"a": made(0.1).run(jax.random.key(0), y=Y), "b": made(1.5).run(jax.random.key(0), y=Y)}
    even = smcdiff.compare(runs).probabilities
    odd = smcdiff.compare(runs, prior={"a": 3.0, "b": 1.0}).probabilities
    np.testing.assert_allclose(odd["a"] / odd["b"], 3.0 * even["a"] / even["b"], rtol=1e-6)


def test_refusals():
    run = made(0.5).run(jax.random.key(0), y=Y)
    other = made(0.5).run(jax.random.key(0), y=Y + 1.0)
    off = dataclasses.replace(run, weighted=False)
    alike = dataclasses.replace(run, chains_alike=True)
    for candidates, options, match in (
        ({"a": run}, {}, "1 models; give two"),
        ({"a": run, "b": other}, {}, "'a' and 'b' have other data"),
        ({"a": run, "b": off}, {}, "'b' was sampled with weights off"),
        ({"a": alike, "b": run}, {}, "each chain of model 'a' has its own path"),
        ({"a": run, "b": 3.0}, {}, "'b' is a float; give a Posterior"),
        ({"a": run, "b": run}, {"prior": {"a": 1.0}}, "prior is of"),
        ({"a": run, "b": run}, {"prior": {"a": 1.0, "b": 0.0}}, "each must be positive"),
    ):
        with pytest.raises(InputError, match=match):
            smcdiff.compare(candidates, **options)
