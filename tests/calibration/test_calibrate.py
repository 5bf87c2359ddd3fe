"""Right posteriors pass, and each wrong one is seen by the statistic that should see it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, InputError, Posterior, SamplingError, calibrate, priors, proposals
from smcdiff.calibration._joint import from_prior, read_joint
from smcdiff.calibration._samplers import runs_of
from smcdiff.sampler import _catalogue
from tests.calibration.models import (
    MIXTURE,
    PRIOR,
    Exact,
    ignores_data,
    mixture_model,
    offset_model,
)
from tests.results.records import record

QUANTITIES = ["x[0]", "x[1]", "offset", "log likelihood"]


def calibrated(sampler, model=offset_model, **options):
    options = {"num_simulations": 200, "num_draws": 59, "simulations_per_batch": 50, **options}
    return calibrate(model, sampler, progress_bar=False, **options)


@pytest.fixture(scope="module")
def exact():
    return calibrated(Exact())


def test_exact_posterior_passes(exact):
    assert list(exact.ranks) == QUANTITIES
    assert list(exact.tarp_ranks) == ["TARP", "TARP x", "TARP offset"]
    assert exact.passes(0.01) and not exact.failures
    assert all(ranks.shape == (200,) for ranks in exact.ranks.values())
    for name in [*exact.ranks, *exact.tarp_ranks]:
        assert 0.82 < exact.coverage(name).at(0.9) < 0.97
        assert exact.coverage_error(name) < 0.06


def test_too_narrow():
    found = calibrated(Exact(scale=0.6))
    assert not found.passes()
    for name in ("x[0]", "x[1]", "offset"):
        assert found.p_values[name] < 1e-4
        assert found.coverage(name).at(0.9) < 0.8
    assert found.p_values["TARP"] < 1e-4 and found.coverage().at(0.5) < 0.45


def test_too_wide():
    found = calibrated(Exact(scale=1.8))
    assert not found.passes()
    for name in ("x[0]", "x[1]", "offset"):
        assert found.p_values[name] < 1e-4
        assert found.coverage(name).at(0.5) > 0.6


def test_shifted():
    found = calibrated(Exact(shift=0.5))
    assert not found.passes()
    for name in ("x[0]", "x[1]", "offset"):
        assert found.p_values[name] < 1e-4
        assert found.ranks[name].mean() < 0.42 * 59  # draws are too large


def test_prior_in_place_of_the_posterior():
    """Only a quantity that depends on the data sees it (Modrák et al. 2023)."""
    found = calibrated(ignores_data, quantities={"misfit": lambda sites, data: misfit(sites, data)})
    assert min(found.p_values[name] for name in ("x[0]", "x[1]", "offset", "TARP")) > 0.001
    assert found.p_values["log likelihood"] < 1e-6
    assert found.p_values["misfit[0]"] < 1e-6


def misfit(sites, data):
    return jnp.square(data["y"] - sites["x"][0] - 0.5 * sites["x"][1] - sites["offset"])[:1]


@pytest.mark.slow
def test_weighted_sampler_on_a_mixture(monkeypatch):
    sizes, run = [], _catalogue.Catalogue.run

    def counted(self, items):
        sizes.append(len(items))
        return run(self, items)

    monkeypatch.setattr(_catalogue.Catalogue, "run", counted)
    smc = SMC(mixture_model, proposals.MomentMatched(), num_particles=200, num_steps=6)
    found = calibrated(smc, mixture_model, num_simulations=24, simulations_per_batch=16)
    assert sizes == [16, 16]  # the last one is filled up, so that one program serves both
    assert found.passes() and list(found.tarp_ranks) == ["TARP"]
    np.testing.assert_array_equal(found.simulations, np.arange(24))
    assert 59 < np.median(found.effective_draws) <= 200
    assert found.attrs["sampler"] == "SMC" and "MomentMatched" in found.attrs["proposal"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("proposal", "weighted"),
    [(proposals.Twisted(), True), (proposals.DPS(), False)],
)
def test_weights_decide(proposal, weighted):
    smc = SMC(mixture_model, proposal, num_particles=600, num_steps=15, weighted=weighted)
    found = calibrated(smc, mixture_model, num_simulations=400)
    assert found.passes() == weighted
    assert (found.coverage_error() < 0.04) == weighted


def test_results_do_not_depend_on_the_batches():
    few, many = (calibrated(Exact(), num_simulations=12, simulations_per_batch=n) for n in (5, 12))
    for name in QUANTITIES:
        np.testing.assert_array_equal(few.ranks[name], many.ranks[name])


def test_large_site():
    prior = priors.Gaussian(jnp.zeros((3, 6)), 1.0)

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=y)

    def sampler(scale):
        def draw(key, data):
            return {"x": data["y"][None] / 2 + scale * jax.random.normal(key, (60, 3, 6))}

        return draw

    found = calibrated(sampler(0.5**0.5), model, num_simulations=60)
    projections = [f"x projection {i}" for i in range(4)]
    assert list(found.ranks) == ["x mean", "x sd", *projections, "log likelihood"]
    assert found.passes()
    assert calibrated(sampler(0.4), model, num_simulations=60).p_values["x sd"] < 1e-4


def test_what_runs_as_smc_does():
    class Importance:
        """Weighted draws of the prior."""

        def run(self, key, *, y):
            x = MIXTURE.sample(key, (1, 800))
            log_weights = dist.Normal(x.sum(-1), 0.5).log_prob(y[None])
            return record(np.asarray(log_weights), samples={"x": np.asarray(x)})

    found = calibrated(Importance(), mixture_model, num_simulations=80, y=None)
    assert isinstance(Importance().run(jax.random.key(0), y=jnp.zeros(1)), Posterior)
    assert found.passes() and np.all(found.effective_draws < 790)


def test_exact_observation_has_no_log_likelihood():
    def model(y=None):
        numpyro.sample("y", dist.Delta(numpyro.sample("x", PRIOR), event_dim=1), obs=y)

    def draw(key, data):
        return {"x": jnp.broadcast_to(data["y"], (60, 2))}

    found = calibrated(draw, model, num_simulations=60)
    assert list(found.ranks) == ["x[0]", "x[1]"]
    assert found.passes()  # all ties, broken at random


def test_named_data_arguments():
    def model(noise, observed=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=observed)

    def draw(key, data):
        return {"x": jnp.broadcast_to(data["y"], (60, 2))}

    found = calibrate(
        model, draw, 0.5, num_simulations=2, num_draws=59, progress_bar=False,
        data_arguments={"y": "observed"},
    )  # fmt: skip
    assert len(found.simulations) == 2
    with pytest.raises(
        InputError, match=r"none of the sites \['y'\] bears the name of an argument"
    ):
        calibrate(model, draw, 0.5, num_simulations=2)
    with pytest.raises(InputError, match="names the site 'z'"):
        calibrate(model, draw, 0.5, num_simulations=2, data_arguments={"z": "observed"})
    with pytest.raises(InputError, match="does not observe the argument 'noise'|multiple values"):
        calibrate(model, draw, 0.5, num_simulations=2, data_arguments={"y": "noise"})


def test_failed_runs_are_told():
    class Sometimes(Exact):
        def __call__(self, key, data):
            if data["y"][0] > 3.0:
                raise SamplingError("no weight is left")
            return super().__call__(key, data)

    found = calibrated(Sometimes(), num_simulations=30)
    assert 0 < len(found.failures) < 30 and len(found.simulations) == 30 - len(found.failures)
    assert not found.passes() and "no weight is left" in str(found)
    assert not set(found.failures) & set(found.simulations)


def test_draws_that_are_not_finite_are_failures():
    found = calibrated(Exact(scale=np.nan), num_simulations=2)
    assert len(found.failures) == 2 and "not finite" in str(found)
    assert found.p_value == 1.0 and not found.passes()


class Killed(Exception):
    pass


def test_resumes_to_the_same_bits(tmp_path):
    calls = []

    class Counted(Exact):
        def __call__(self, key, data):
            calls.append(key)
            if len(calls) == 8:
                raise Killed
            return super().__call__(key, data)

    options = {"num_simulations": 14, "simulations_per_batch": 3}
    whole = calibrated(Exact(), **options)
    with pytest.raises(Killed):
        calibrated(Counted(), output=tmp_path, **options)
    resumed = calibrated(Counted(), output=tmp_path, **options)
    assert len(calls) == 8 + 14 - 6  # two whole batches were kept
    for name, ranks in whole.ranks.items():
        np.testing.assert_array_equal(resumed.ranks[name], ranks)
    np.testing.assert_array_equal(resumed.tarp_ranks["TARP"], whole.tarp_ranks["TARP"])
    further = calibrated(Counted(), output=tmp_path, **{**options, "num_simulations": 20})
    np.testing.assert_array_equal(further.simulations, np.arange(20))
    np.testing.assert_array_equal(further.ranks["x[0]"][:14], whole.ranks["x[0]"])
    np.testing.assert_array_equal(
        calibrated(Counted(), output=tmp_path, **{**options, "num_simulations": 4}).ranks["x[0]"],
        whole.ranks["x[0]"][:4],
    )
    with pytest.raises(InputError, match=r"of another calibration \(num_draws differ"):
        calibrated(Counted(), output=tmp_path, **options, num_draws=40)
    with pytest.raises(InputError, match=r"of another calibration \(model, quantities differ"):
        calibrated(Counted(), output=tmp_path, **options, noise=0.8)
    with pytest.raises(InputError, match=r"of another calibration \(random key differ"):
        calibrated(Counted(), output=tmp_path, **options, key=jax.random.key(5))


def test_progress():
    seen = []
    calibrate(
        offset_model, Exact(), num_simulations=5, num_draws=59, simulations_per_batch=2,
        progress_bar=lambda done, of, info: seen.append((done, of)),
    )  # fmt: skip
    assert seen[-1] == (5, 5) and sorted({done for done, _ in seen}) == [1, 2, 3, 4, 5]


def test_truths_are_of_the_samplers_chain():
    """Two ancestral steps shrink a standard normal, so that its own draws (100 steps) are wider."""
    schedule = priors.Gaussian(jnp.zeros(2), 1.0).schedule

    def denoise(x, t):
        return schedule.alpha(t) * x

    prior = priors.DiffusionPrior(denoise, schedule, (2,))

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    joint, keys = read_joint(model, (), {}, None), jax.random.split(jax.random.key(1), 400)
    smc = SMC(model, proposals.Bootstrap(), num_particles=8, num_steps=2)
    runs = runs_of(smc, joint, keys[0], 4, 4)
    of_chain = joint.simulator(runs.draw_prior)(keys).unknowns["x"]
    of_prior = joint.simulator(from_prior)(keys).unknowns["x"]
    assert of_chain.std() < 0.85 and of_prior.std() > 0.9
