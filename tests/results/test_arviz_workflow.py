"""From a NumPyro model with plates to ArviZ's tables and pictures, in 0.23 and in 1.x."""

import arviz
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray
from numpyro.infer import Predictive

from smcdiff import SMC, InputError, Posterior, priors, schedules
from tests.results import arviz_versions
from tests.results.records import record

matplotlib.use("agg")
PLACES, DRAWS = 4, 30
PRIOR = priors.Gaussian(jnp.zeros(PLACES), 1.0)


def model(mask, y=None):
    x = numpyro.sample("x", PRIOR, infer={"event_dims": ["place"]})
    noise = numpyro.sample("noise", dist.HalfNormal(0.5))
    with numpyro.plate("sensor", PLACES), numpyro.handlers.mask(mask=mask):
        numpyro.deterministic("misfit", x - 1.0)
        numpyro.sample("y", dist.Normal(x, noise), obs=y)


MASK = jnp.array([True, True, True, False])
Y = jnp.array([0.5, -0.4, 1.2, 0.0])
LABELS = {"place": ["a", "b", "c", "d"], "sensor": np.array([10, 20, 30, 40])}


@pytest.fixture(scope="module")
def posterior():
    smc = SMC(model, num_particles=100, num_steps=8, num_chains=4, progress_bar=False)
    return smc.run(jax.random.key(0), MASK, y=Y)


@pytest.fixture(scope="module")
def given(posterior):
    """What a user adds to a run, under the names of ``arviz.from_numpyro``."""
    draws = posterior.get_samples(group_by_chain=True)
    replicate = Predictive(model, draws, batch_ndims=2)
    return {
        "prior": Predictive(model, num_samples=DRAWS)(jax.random.key(1), MASK),
        "posterior_predictive": replicate(jax.random.key(2), MASK),
        "constant_data": {"mask": MASK},
    }


@pytest.fixture(scope="module")
def data(posterior, given):
    return posterior.to_arviz(**given, coords=LABELS, dims={"mask": ["sensor"]})


def test_groups_and_their_axes(data):
    draws, prior = data["posterior"], data["prior"]
    assert draws["x"].dims == ("chain", "draw", "place")
    assert draws["misfit"].dims == ("chain", "draw", "sensor")
    assert prior["x"].dims == ("chain", "draw", "place")
    assert prior["x"].shape == (1, DRAWS, PLACES)
    assert set(prior.data_vars) == set(draws.data_vars) == {"x", "noise", "misfit"}
    assert data["prior_predictive"]["y"].dims == ("chain", "draw", "sensor")
    assert data["posterior_predictive"]["y"].shape == (4, 100, PLACES)
    assert list(data["posterior_predictive"].data_vars) == ["y"]
    assert data["log_likelihood"]["y"].dims == ("chain", "draw", "sensor")
    assert data["observed_data"]["y"].dims == ("sensor",)
    assert data["constant_data"]["mask"].dims == ("sensor",)
    assert data["weighted_posterior"]["x"].dims == ("chain", "particle", "place")
    assert data["posterior"]["x"].sel(place="c").shape == (4, 100)
    np.testing.assert_array_equal(data["observed_data"]["sensor"], LABELS["sensor"])


def test_axes_are_those_that_numpyros_bridge_infers(posterior):
    """ArviZ reads them off the model itself; only where it has fewer names do ours go on."""
    if arviz_versions.IS_1:
        from arviz_base.io_numpyro import infer_dims
    else:
        from arviz.data.io_numpyro import infer_dims
    inferred = infer_dims(model, (MASK,), {"y": Y})
    inferred.pop("_mask", None)
    assert posterior.dims == {site: tuple(axes) for site, axes in inferred.items()}


def test_names_of_axes_are_saved(posterior, tmp_path):
    file = posterior.save(tmp_path / "posterior.nc")
    assert Posterior.load(file).dims == posterior.dims
    with xarray.open_datatree(file, engine="h5netcdf") as tree:
        assert tree["weighted_posterior"]["x"].dims == ("chain", "particle", "place")


def test_export_is_saved_by_arviz_itself(data, tmp_path):
    file = tmp_path / "all.nc"
    data.to_netcdf(file, engine="h5netcdf")
    with xarray.open_datatree(file, engine="h5netcdf") as tree:
        assert tree["prior_predictive"]["y"].dims == ("chain", "draw", "sensor")
        assert list(tree["posterior"]["place"].values) == LABELS["place"]


def test_tables_and_pictures(data):
    """Every function of the workflow page; their numbers are tested elsewhere."""
    table = arviz.summary(data, var_names=["x"])
    assert [str(row) for row in table.index] == ["x[a]", "x[b]", "x[c]", "x[d]"]
    arviz.plot_forest(data, var_names=["x"])
    arviz.plot_rank(data, var_names=["noise"])
    arviz.plot_pair(data, var_names=["x", "noise"], coords={"place": ["a", "b"]})
    arviz_versions.plot_ppc(data, 20)
    arviz_versions.plot_prior_ppc(data, 20)
    arviz_versions.plot_prior_posterior(data, "noise")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": {"z": ["a"]}}, r"dims names 'z', .* \['mask', 'misfit', 'noise', 'x', 'y'\]"),
        ({"dims": {"x": ["a", "b"]}}, r"dims\['x'\] has 2 names.* shape \(4,\)"),
        ({"dims": {"x": "place"}}, r"dims\['x'\] is 'place'; give a list"),
        ({"dims": {"x": ["draw"]}}, r"dims\['x'\] has the dimension 'draw', .* export's own"),
        ({"dims": {"x": ["noise"]}}, r"'noise' is a variable, and a dimension of 'x'"),
        ({"coords": {"pixel": range(4)}}, r"coords names the dimension 'pixel', .*'sensor'"),
        ({"coords": {"sensor": range(5)}}, r"coords\['sensor'\] has 5 labels.* length 4"),
        (
            {"constant_data": {"m": np.ones(3)}, "dims": {"m": ["place"]}},
            r"dimension 'place' has length 4 in 'x' and 3 in 'm'",
        ),
        ({"constant_data": {"y": np.ones(3)}}, r"constant_data\['y'\] has the name of a site"),
        (
            {"prior": {"x": np.ones((5, PLACES)), "noise": np.ones(6)}},
            r"prior\['noise'\] has shape \(6,\) in place of \(5,\)",
        ),
        ({"prior": {"x": np.ones(())}}, r"prior\['x'\] has shape \(\) in place of \('draws', 4\)"),
        (
            {"posterior_predictive": {"y": np.ones((4, 100, 3))}},
            r"posterior_predictive\['y'\] has shape \(4, 100, 3\) in place of \(4, 100, 4\)",
        ),
    ],
)
def test_bad_input(posterior, given, options, message):
    with pytest.raises(InputError, match=f"to_arviz: .*{message}"):
        posterior.to_arviz(**{**given, **options})


def test_a_name_cannot_stand_twice_in_one_variable():
    with pytest.raises(InputError, match=r"dimension 'a', which is there twice"):
        record(samples={"x": np.zeros((2, 100, 3, 3))}).to_arviz(dims={"x": ["a", "a"]})


def test_prior_predictive_runs_the_reverse_process():
    """200 draws of N(2, 0.3^2) through a denoiser, by 100 ancestral steps and not by a density.

    The standard error of their mean is 0.02, of their standard deviation 0.015; the steps shrink it
    by 3 %.
    """
    schedule = schedules.Cosine()

    def denoiser(x, t):
        level = schedule.level(t)
        gain = level.alpha * 0.09 / (level.alpha**2 * 0.09 + level.sigma**2)
        return 2.0 + gain * (x - level.alpha * 2.0)

    learned = priors.DiffusionPrior(denoiser, schedule, (2,))

    def model(y=None):
        x = numpyro.sample("x", learned)
        numpyro.sample("y", dist.Normal(x, 0.01).to_event(1), obs=y)

    drawn = Predictive(model, num_samples=200, parallel=True)(jax.random.key(0))
    assert drawn["x"].shape == drawn["y"].shape == (200, 2)
    np.testing.assert_allclose(drawn["y"], drawn["x"], atol=0.06)
    np.testing.assert_allclose(drawn["x"].mean(0), 2.0, atol=0.06)
    np.testing.assert_allclose(drawn["x"].std(0), 0.3, atol=0.06)
