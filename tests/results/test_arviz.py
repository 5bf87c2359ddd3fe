"""What ArviZ's own functions make of the export, in 0.23 (Python 3.11) as in 1.x."""

import builtins
import importlib.metadata
import subprocess
import sys

import arviz
import jax
import numpy as np
import pytest
import scipy.stats
from numpyro.infer import Predictive

from smcdiff import InputError
from smcdiff.results._arviz import pareto_shape
from tests.results.arviz_versions import elpd, plot_ppc
from tests.results.records import Y, importance, model, record


@pytest.fixture(scope="module")
def posterior():
    return importance()


@pytest.fixture(scope="module")
def data(posterior):
    draws = posterior.get_samples(group_by_chain=True)
    predictive = Predictive(model, draws, batch_ndims=2)(jax.random.key(1))
    return posterior.to_arviz(posterior_predictive=predictive)


def test_groups(data):
    assert data["posterior"]["x"].dims == ("chain", "draw", "x_dim_0")
    assert data["posterior"]["energy"].dims == ("chain", "draw")
    assert data["weighted_posterior"]["log_weight"].dims == ("chain", "particle")
    assert data["sample_stats"]["founder"].dims == ("chain", "draw")
    assert data["smc"]["ess"].dims == ("chain", "step")
    assert data["smc"]["log_evidence"].dims == ("chain",)
    assert data["log_likelihood"]["y"].dims == ("chain", "draw", "y_dim_0")
    assert data["posterior_predictive"]["y"].dims == ("chain", "draw", "y_dim_0")
    np.testing.assert_array_equal(data["observed_data"]["y"], Y)
    assert list(data["posterior_predictive"].data_vars) == ["y"]  # not energy, of the posterior


def test_draws_are_those_of_get_samples(posterior, data):
    draws = posterior.get_samples(group_by_chain=True)["x"]
    np.testing.assert_array_equal(data["posterior"]["x"], draws)
    particle = data["sample_stats"]["particle"].values
    expected = posterior.samples["x"][np.arange(2)[:, None], particle]
    np.testing.assert_array_equal(draws, expected)


def test_summary(posterior, data):
    summary = arviz.summary(data, var_names=["x"])
    # ArviZ 1.x rounds, and gives text.
    np.testing.assert_allclose(summary["mean"].astype(float), posterior.mean()["x"], atol=0.05)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of the draws, which repeat
def test_loo(data):
    loo = arviz.loo(data, pointwise=True)
    arviz.plot_khat(loo)
    # log N(y; 0, 1.25) of each entry, which the other does not change. With a noise this small the
    # ratios have heavy tails, and PSIS is off by half a nat (that is what it warns of).
    expected = scipy.stats.norm(0, 1.25**0.5).logpdf(Y).sum()
    assert elpd(loo) == pytest.approx(expected, abs=0.6)


def test_plots(data):
    arviz.plot_forest(data, var_names=["x"])
    plot_ppc(data, 20)


def test_replications_of_another_shape(posterior):
    flat = Predictive(model, posterior.get_samples())(jax.random.key(1))
    with pytest.raises(InputError, match=r"\(2000, 2\).*group_by_chain=True"):
        posterior.to_arviz(posterior_predictive=flat)


def test_without_arviz(posterior, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(InputError, match="pip install 'arviz>=0.23"):
        posterior.to_arviz()
    with pytest.raises(InputError, match="pip install"):
        posterior.diagnose()


def test_advice_for_arvizs_next_version_is_not_passed_on():
    """A fresh process, warnings as errors; ArviZ 0.23 has a FutureWarning on import."""
    code = (
        "import numpy as np; from smcdiff.results._arviz import pareto_shape;"
        "print(pareto_shape(np.log(np.arange(1.0, 101.0))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5


@pytest.mark.parametrize("shape", [0.3, 0.7, 1.1])
def test_pareto_shape_of_known_tails(shape):
    """Weights U^-k have Pareto tails of shape k; the fit of 300 tail points is good to 0.1."""
    weights = scipy.stats.genpareto(shape, loc=1.0).rvs(10_000, random_state=1)
    assert abs(pareto_shape(np.log(weights)) - shape) < 3 * (1 + shape) / np.sqrt(300)


@pytest.mark.parametrize(
    "log_weights",
    [np.zeros(100), np.log([0.5] * 50 + [1.5] * 50), np.float32(np.full(512, -np.log(512)))],
)
def test_pareto_shape_where_no_tail_is_left(log_weights):
    assert pareto_shape(log_weights) == -np.inf


@pytest.mark.parametrize(
    "log_weights", [np.zeros(10), np.arange(20.0), np.append(np.zeros(99), 1000.0)]
)
def test_pareto_shape_that_cannot_be_told(log_weights):
    assert np.isnan(pareto_shape(log_weights))


def test_the_end_of_a_run_needs_no_arviz(monkeypatch):
    from smcdiff.results._diagnosis import warn_if_degenerate

    original = builtins.__import__

    def refuse(name, *rest, **options):
        assert not name.startswith("arviz")
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    warn_if_degenerate(record())
