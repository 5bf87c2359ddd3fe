"""Models whose joint law is not to be had are refused before anything runs."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from smcdiff import SMC, InputError, calibrate, priors, proposals
from smcdiff.calibration._joint import from_prior, read_joint
from tests.calibration.models import MIXTURE, PRIOR, Exact, mixture_model, offset_model


def never(key, data):
    raise AssertionError("the sampler must not run")


def linked(y=None):
    """A site whose prior depends on another one."""
    centre = numpyro.sample("centre", dist.Normal(5.0, 1.0).expand([2]).to_event(1))
    x = numpyro.sample("x", priors.Gaussian(centre, 0.01))
    with numpyro.plate("rows", 2):
        numpyro.sample("y", dist.Normal(x, 0.1), obs=y)


def test_joint_draws():
    joint = read_joint(linked, (), {}, None)
    assert joint.data == {"y": "y"} and joint.unknowns == ("centre", "x")
    unknowns, data = joint.simulator(from_prior)(jax.random.split(jax.random.key(0), 200))
    x, centre = unknowns["x"], unknowns["centre"]
    assert x.shape == data["y"].shape == (200, 2)
    assert abs(centre.mean() - 5.0) < 0.3 and 0.05 < (x - centre).std() < 0.15
    assert 0.07 < (data["y"] - x).std() < 0.13


def test_log_likelihood():
    joint = read_joint(linked, (), {}, None)
    sites = {"x": jnp.ones(2), "centre": jnp.zeros(2)}
    found = joint.log_likelihood(sites, {"y": jnp.array([1.1, 0.8])}, ())
    expected = dist.Normal(1.0, 0.1).log_prob(jnp.array([1.1, 0.8])).sum()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def observed_elsewhere(y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)
    numpyro.sample("z", dist.Normal(x, 1.0).to_event(1), obs=jnp.zeros(2))


def factor(y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)
    numpyro.factor("soft", -jnp.sum(x**2))


def scaled(y=None):
    x = numpyro.sample("x", PRIOR)
    with handlers.scale(scale=2.0):
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


def unused(y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1))


def changed(y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=None if y is None else 2.0 * y)


def needs_data(y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y + 0.0)


def other_sites(y=None):
    x = numpyro.sample("x", PRIOR)
    if y is not None:
        numpyro.sample("late", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


def nothing_latent(y=None):
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (observed_elsewhere, "site 'z' is observed although it was given no data"),
        (factor, "site 'soft' is a numpyro.factor"),
        (scaled, "site 'y' is scaled"),
        (unused, "site 'y' does not observe the argument 'y'"),
        (changed, "site 'y' does not observe the argument 'y' as it is"),
        (needs_data, "fails with no data"),
        (other_sites, r"latent sites \['late', 'x'\], and without \['x'\]"),
        (nothing_latent, "nothing to infer"),
    ],
)
def test_refused_models(model, message):
    with pytest.raises(InputError, match=message):
        calibrate(model, never, num_simulations=2)


def named_twice(scale=None, y=None):
    """The name of a latent site is an argument, too: a value to be conditioned on."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0), obs=scale)
    numpyro.sample("y", dist.Normal(numpyro.sample("x", PRIOR), scale).to_event(1), obs=y)


def test_chosen_data_arguments_are_all():
    assert read_joint(named_twice, (), {}, {"y": "y"}).unknowns == ("scale", "x")
    assert read_joint(named_twice, (), {}, None).unknowns == ("x",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_simulations": 0}, "calibrate: num_simulations is 0; it must be at least 1"),
        ({"num_draws": 2.5}, "calibrate: num_draws is 2.5; it must be a whole number"),
        ({"simulations_per_batch": 0}, "simulations_per_batch is 0"),
        ({"key": 3}, "calibrate: the random key is 3"),
        ({"data_arguments": {}}, "data_arguments is empty"),
        ({"quantities": {"q": lambda sites, data: sites["z"]}}, r"quantities\['q'\] fails"),
        ({"quantities": {"q": lambda sites, data: {}}}, r"quantities\['q'\] returns no array"),
        ({"quantities": {"TARP": lambda sites, data: data["y"]}}, "are ranked already"),
    ],
)
def test_refused_options(options, message, unchecked):
    with pytest.raises(InputError, match=message):
        calibrate(offset_model, never, **{"num_simulations": 2, **options})


def draws_of(**values):
    return lambda key, data: values


X, OFFSET = jnp.zeros((99, 2)), jnp.zeros(99)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (3, "the sampler is a int"),
        (lambda key, data: X, "returns a"),
        (draws_of(x=X), r"no draws of the sites \['offset'\]"),
        (draws_of(x=X[:, :1], offset=OFFSET), r"returns \(99, 1\) for site 'x'"),
        (draws_of(x=X, offset=OFFSET[:98]), r"returns \(99, 2\) for site 'x'"),
        (Exact(count=50), "num_draws is 99, and the sampler returns 50"),
    ],
)
def test_refused_samplers(sampler, message):
    with pytest.raises(InputError, match=message):
        calibrate(offset_model, sampler, num_simulations=2, progress_bar=False)


def test_smc_is_checked_before_it_runs():
    few = SMC(mixture_model, num_particles=50, num_steps=4)
    with pytest.raises(InputError, match="num_draws is 99, and a posterior has 50 particles"):
        calibrate(mixture_model, few, num_simulations=2)

    def nonlinear(y=None):
        x = numpyro.sample("x", MIXTURE)
        numpyro.sample("y", dist.Normal(jnp.abs(x), 1.0).to_event(1), obs=y)

    smc = SMC(nonlinear, proposals.MomentMatched(), num_particles=100, num_steps=4)
    with pytest.raises(InputError, match="needs an observation that is linear"):
        calibrate(nonlinear, smc, num_simulations=2)


def test_quantity_that_is_nan():
    with pytest.raises(InputError, match="quantity 'q' is NaN at"):
        calibrate(
            offset_model, Exact(count=99), num_simulations=2, progress_bar=False,
            quantities={"q": lambda sites, data: jnp.log(-jnp.exp(sites["offset"]))},
        )  # fmt: skip
