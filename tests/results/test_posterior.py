"""`Posterior`: pooling over chains, resampling, ArviZ, netCDF."""

import dataclasses

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive

from smcdiff import SMC, InputError, Posterior, priors
from smcdiff.results.posterior import log_mean_evidence


def model(y=None):
    x = numpyro.sample("x", priors.Gaussian(jnp.zeros(2), 1.0))
    numpyro.deterministic("energy", jnp.sum(x**2))
    numpyro.sample("y", dist.Normal(x, 0.5), obs=y)


@pytest.fixture(scope="module")
def posterior():
    smc = SMC(
        model, num_particles=64, num_steps=6, num_chains=2, store_ancestors=True,
        progress_bar=False,
    )  # fmt: skip
    return smc.run(jax.random.key(0), y=jnp.array([1.0, -1.0]))


def two_chains(log_evidence):
    """Two chains of two particles at 0, 1 and 10, 11, with weights 1/4 and 3/4."""
    log_weights = np.log(np.array([[0.25, 0.75], [0.25, 0.75]]))
    zeros = np.zeros((2, 1))
    return Posterior(
        samples={"x": np.array([[0.0, 1.0], [10.0, 11.0]])},
        log_weights=log_weights,
        log_evidence=np.log(np.array(log_evidence)),
        ess=zeros, founders=zeros, num_founders=zeros, log_evidence_increments=zeros,
        resampled=zeros, log_snr=np.zeros(1), pointwise_log_likelihood={}, observed={},
        weighted=True,
    )  # fmt: skip


def test_chains_are_pooled_by_their_evidence():
    pooled = two_chains([1.0, 3.0])
    np.testing.assert_allclose(pooled.pooled_weights, [[1 / 16, 3 / 16], [3 / 16, 9 / 16]])
    np.testing.assert_allclose(pooled.mean()["x"], 0.25 * 0.75 + 0.75 * 10.75)
    unweighted = dataclasses.replace(pooled, weighted=False)
    np.testing.assert_allclose(unweighted.mean()["x"], 0.5 * 0.75 + 0.5 * 10.75)
    assert log_mean_evidence(pooled.log_evidence) == pytest.approx(np.log(2.0))
    assert log_mean_evidence(np.array([-5000.0, -5000.0])) == pytest.approx(-5000.0)


def test_predictive_replicates_the_data(posterior):
    """Posterior N(0.8 y, 0.2), so y_rep has mean 0.8 y and variance 0.45."""
    draws = posterior.resample(jax.random.key(1), 4000)
    y = Predictive(model, draws)(jax.random.key(2))["y"]
    # 128 particles in all leave 0.04 of the mean, 4,000 replications 0.01.
    np.testing.assert_allclose(y.mean(axis=0), [0.8, -0.8], atol=0.2)
    np.testing.assert_allclose(y.std(axis=0), 0.45**0.5, atol=0.1)


def test_resample_follows_the_weights():
    draws = two_chains([1.0, 3.0]).resample(jax.random.key(0), 1600)["x"]
    values, counts = np.unique(np.asarray(draws), return_counts=True)
    np.testing.assert_array_equal(values, [0.0, 1.0, 10.0, 11.0])
    assert np.all(np.abs(counts - 100 * np.array([1, 3, 3, 9])) <= 1)  # systematic
    with pytest.raises(InputError, match="n is 0"):
        two_chains([1.0, 1.0]).resample(jax.random.key(0), 0)


def test_arviz_summarises_it(posterior):
    tree = posterior.to_arviz()
    assert set(tree.children) == {
        "posterior", "weighted_posterior", "sample_stats", "log_likelihood",
        "weighted_log_likelihood", "smc", "observed_data",
    }  # fmt: skip
    assert tree["posterior/x"].dims == ("chain", "draw", "x_dim_0")
    assert tree["smc/ess"].shape == (2, 7)
    assert tree["log_likelihood/y"].dims == ("chain", "draw", "y_dim_0")
    # ArviZ 1.x takes the tree as it is; its summary has rounded figures, as text.
    data = arviz.from_datatree(tree) if hasattr(arviz, "from_datatree") else tree
    summary = arviz.summary(data, var_names=["x"])
    np.testing.assert_allclose(summary["mean"].astype(float), posterior.mean()["x"], atol=0.2)


def test_deterministic_sites_are_samples(posterior):
    assert list(posterior.samples) == ["x", "energy"]
    expected = np.sum(posterior.samples["x"] ** 2, axis=-1)
    np.testing.assert_allclose(posterior.samples["energy"], expected, rtol=1e-5)
    assert posterior.mean()["energy"].shape == ()
    assert posterior.to_arviz()["posterior/energy"].dims == ("chain", "draw")


def test_log_likelihood_is_pointwise(posterior):
    expected = dist.Normal(posterior.samples["x"], 0.5).log_prob(jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(posterior.pointwise_log_likelihood["y"], expected, rtol=1e-4)
    np.testing.assert_allclose(posterior.log_likelihood, expected.sum(-1), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # 64 particles are few for it
def test_arviz_takes_the_pointwise_log_likelihood(posterior):
    tree = posterior.to_arviz()
    data = arviz.from_datatree(tree) if hasattr(arviz, "from_datatree") else tree
    loo = arviz.loo(data)
    assert np.isfinite(loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo)  # ArviZ 1.x, 0.x


def test_saved_and_loaded_is_the_same(posterior, tmp_path):
    file = posterior.save(tmp_path / "posterior.nc")
    loaded = Posterior.load(file)
    for field in dataclasses.fields(Posterior):
        ours, theirs = getattr(posterior, field.name), getattr(loaded, field.name)
        if isinstance(ours, dict) and field.name != "attrs":
            assert list(ours) == list(theirs)
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])
        elif isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert ours == theirs
    assert [path.name for path in tmp_path.iterdir()] == ["posterior.nc"]


def test_files_that_cannot_be_used(posterior, tmp_path):
    file = posterior.save(tmp_path / "posterior.nc")
    with pytest.raises(InputError, match="exists"):
        posterior.save(file)
    posterior.save(file, overwrite=True)
    with pytest.raises(InputError, match="cannot write"):
        posterior.save(tmp_path / "missing" / "posterior.nc")
    with pytest.raises(InputError, match="no such file"):
        Posterior.load(tmp_path / "other.nc")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated"):
        Posterior.load(file)


def test_repr_is_one_line(posterior):
    assert "2 chains x 64 particles" in repr(posterior)
    assert "\n" not in repr(posterior)
