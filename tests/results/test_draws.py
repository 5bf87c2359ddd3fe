"""The draws of Markov chains: tables, and what ArviZ takes."""

import jax
import numpy as np
import pytest

from smcdiff import Draws, InputError
from tests.results.arviz_versions import IS_1


def record(**fields):
    """Four chains of 500 independent draws; the second entry is the first of all chains' mean."""
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (4, 500, 2))
    renewed = np.zeros((4, 500, 3), bool)
    renewed[:, ::2, -1] = True
    healthy = {
        "samples": {"x": x, "picture": rng.normal(size=(4, 500, 5, 5)) * np.arange(1.0, 6.0)},
        "pointwise_log_likelihood": {"y": -0.01 * x**2},
        "observed": {"y": np.zeros(2)},
        "renewed": renewed,
        "ess": np.full((4, 500, 3), 5.0),
        "acceptance": np.full((4, 500), np.nan),
        "log_snr": np.array([-4.0, 2.0, np.inf]),
    }
    return Draws(**{**healthy, **fields})


def test_independent_draws():
    found = record().summary(prob=0.8)["x"]
    np.testing.assert_allclose(found["mean"], 2.0, atol=3 * 3.0 / 2000**0.5)
    np.testing.assert_allclose(found["std"], 3.0, rtol=0.05)
    np.testing.assert_allclose(found["10.0%"], 2.0 - 3.0 * 1.2816, atol=0.35)
    np.testing.assert_allclose(found["mcse"], 3.0 / 2000**0.5, rtol=0.15)
    for name in ("ess_bulk", "ess_tail"):
        assert np.all((found[name] > 1500) & (found[name] < 2700))
    assert np.all(found["r_hat"] < 1.01)


def test_chains_that_differ():
    x = record().samples["x"] + np.arange(4.0)[:, None, None]
    assert np.all(record(samples={"x": x}).summary()["x"]["r_hat"] > 1.05)


def test_nothing_to_be_told():
    """Equal values, or too few draws."""
    draws = record(samples={"x": np.ones((4, 500)), "few": np.zeros((4, 500))})
    assert np.isnan(draws.summary()["x"]["r_hat"]) and draws.summary()["x"]["mean"] == 1.0
    whole = record()
    short = record(
        samples={"x": whole.samples["x"][:, :3]}, acceptance=whole.acceptance[:, :3],
        ess=whole.ess[:, :3], renewed=whole.renewed[:, :3], pointwise_log_likelihood={},
    ).summary()["x"]  # fmt: skip
    assert np.all(np.isnan(short["ess_bulk"])) and np.all(np.isfinite(short["std"]))
    with pytest.raises(InputError, match="prob"):
        draws.summary(prob=1.5)


def test_draws_are_picked_together():
    whole = record()
    both = {"x": whole.samples["x"], "sum": whole.samples["x"].sum(-1)}
    some = record(samples=both).resample(jax.random.key(0), 1000)
    np.testing.assert_allclose(some["sum"], some["x"].sum(-1), rtol=1e-5)
    # Half of 2,000 without repeats, from all chains.
    assert len(np.unique(some["sum"])) == 1000
    firsts = both["sum"][:, 0].astype(np.float32)
    every = record(samples=both).resample(jax.random.key(0), 2000)["sum"]
    assert np.isin(firsts, np.asarray(every)).all()
    with pytest.raises(InputError, match="n is 0"):
        whole.resample(jax.random.key(0), 0)


def test_table(capsys):
    record().print_summary()
    shown = capsys.readouterr().out
    assert "x[0]" in shown and "picture: the widest, the middle and the narrowest of 25" in shown
    assert "0% renewed x_T" in shown and "50% x_0" in shown
    assert "50% moved x_0" in repr(record())


def test_what_arviz_takes():
    import arviz as az

    data = record().to_arviz()
    groups = {"posterior", "sample_stats", "log_likelihood", "observed_data"}
    assert set(data.children if IS_1 else data.groups()) == groups
    assert data.posterior["picture"].dims == ("chain", "draw", "picture_dim_0", "picture_dim_1")
    assert set(data.sample_stats) == {"lp", "renewed", "renewed_x0", "ess"}
    np.testing.assert_allclose(data.sample_stats["renewed"].mean(), 1 / 6)
    np.testing.assert_allclose(record().log_likelihood, data.sample_stats["lp"])
    named = record(dims={"picture": ("row", "column")}).to_arviz()
    assert named.posterior["picture"].dims == ("chain", "draw", "row", "column")
    assert az.loo(data).n_data_points == 2
    moved = record(acceptance=np.full((4, 500), 0.7))
    assert np.all(moved.to_arviz().sample_stats["acceptance_rate"] == 0.7)
    np.testing.assert_allclose(np.sum(record().pooled_weights), 1.0)
    np.testing.assert_allclose(record().mean()["x"], record().pooled("x").mean(axis=0))
