"""Models and data that are refused, and what is said."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from smcdiff import SMC
from smcdiff.errors import InputError
from smcdiff.problem import read
from smcdiff.problem._arguments import check_model
from smcdiff.problem._layout import Place
from tests.problem.models import PRIOR, A, Y, affine, assert_residual_matches


def make(body, prior=PRIOR):
    """A model whose diffusion site is x."""

    def model(*args, **kwargs):
        body(numpyro.sample("x", prior), *args, **kwargs)

    return model


def normal(mean, y, scale=1.0):
    return numpyro.sample("y", dist.Normal(mean, scale).to_event(jnp.ndim(mean)), obs=y)


def refuses(match, model, *args, linear=None, **kwargs):
    with pytest.raises(InputError, match=match) as caught:
        read(model, args, kwargs, linear=linear)
    assert "\n" not in str(caught.value)


def test_no_diffusion_site():
    def model(y):
        normal(numpyro.sample("x", dist.Normal(0.0, 1.0)), y)

    refuses(r"no site .*'x'.* has a diffusion prior; give one site", model, 0.5)


def test_y_not_given():
    refuses(r"no site is observed; pass data for \['y'\]", affine, A, 0.5)
    refuses(r"no site is observed; pass data for \['y'\]", affine, A, 0.5, y=None)


def test_nothing_observed():
    refuses("no observed site; pass its data", make(lambda x: None))


def test_parameters_that_are_given():
    def model(y):
        x = numpyro.sample("x", PRIOR)
        normal(x, y, numpyro.sample("noise", dist.HalfNormal(1.0)))

    problem = read(handlers.condition(model, {"noise": 0.5}), (jnp.ones(3),))
    assert problem.observed_sites == ("noise", "y")
    assert_residual_matches(problem)  # the HalfNormal term counts: it is a constant
    problem = read(handlers.substitute(model, {"noise": 0.5}), (jnp.ones(3),))
    assert problem.observed_sites == ("y",) and problem.parameters is None
    assert_residual_matches(problem)


def test_obs_mask():
    def body(x, y, m):
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y, obs_mask=m)

    refuses(
        "'y': obs_mask .*handlers.mask", make(body), jnp.ones(3), jnp.array([True, False, True])
    )


def test_subsampled_plate():
    def body(x, y):
        with numpyro.plate("data", 3, subsample_size=2) as index:
            numpyro.sample("y", dist.Normal(x[index], 1.0), obs=y[index])

    refuses(r"plates \['data'\] subsample", make(body), jnp.ones(3))


def test_subsampled_plate_over_the_diffusion_site():
    """Not the message about handlers, although the plate scales the prior."""

    def model(y):
        with numpyro.plate("data", 4, subsample_size=2) as index:
            x = numpyro.sample("x", PRIOR)
            numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y[index])

    refuses(r"plates \['data'\] subsample.*whole plate", model, jnp.ones((4, 3)))


def test_what_is_no_model():
    refuses(r"model is a distribution \(Gaussian\).* samples the prior at a site", PRIOR, Y)
    with pytest.raises(InputError, match=r"model is a value \(NoneType\)"):
        check_model(None)
    with pytest.raises(InputError, match="model is a distribution"):
        SMC(PRIOR, num_particles=8, num_steps=4)


def test_data_in_a_dict():
    refuses(r"'y': the observed value is a dict; .* y=data\['y'\], or run", make(normal), {"y": Y})


def test_params():
    def body(x, y):
        normal(x, y, numpyro.param("s", 1.0))

    refuses(r"param sites \['s'\]", make(body), jnp.ones(3))


def test_observed_diffusion_site():
    def model(y):
        numpyro.sample("x", PRIOR, obs=y)

    refuses("'x' has a diffusion prior and is observed", model, jnp.ones(3))


def test_diffusion_site_whose_value_is_set_by_a_handler():
    model = handlers.substitute(make(normal), {"x": jnp.zeros(3)})
    refuses("'x' .* already set by a handler", model, jnp.ones(3))


@pytest.mark.parametrize(
    "prior", [PRIOR.expand([2]), PRIOR.expand([2]).to_event(1)], ids=["batch", "event"]
)
def test_batched_prior(prior):
    problem = read(make(normal, prior), (jnp.ones((2, 3)),))
    assert problem.layout.places == (("x", Place((2, 3), 0)),) and problem.size == 6


def test_prior_in_a_plate():
    def model(y):
        w = numpyro.sample("w", PRIOR)
        with numpyro.plate("images", 2):
            x = numpyro.sample("x", PRIOR)
        normal(x + w[None], y)

    problem = read(model, (jnp.ones((2, 3)),))
    assert problem.layout.places == (("w", Place((3,), 0)), ("x", Place((2, 3), 3)))


@pytest.mark.parametrize(
    "handler", [handlers.scale(scale=2.0), handlers.mask(mask=False)], ids=["scale", "mask"]
)
def test_scaled_or_masked_prior(handler):
    def model(y):
        with handler:
            x = numpyro.sample("x", PRIOR)
        normal(x, y)

    refuses("'x': a masked or scaled diffusion prior", model, jnp.ones(3))


def test_transformed_prior():
    prior = dist.TransformedDistribution(PRIOR, dist.transforms.ExpTransform())
    refuses("'x': a transformed diffusion prior", make(normal, prior), jnp.ones(3))


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (1,), (3,), ()])
def test_observation_of_another_shape(shape):
    refuses(
        r"'y': the observed value has shape .* its distribution \(4,\)",
        affine,
        A,
        0.5,
        y=jnp.ones(shape),
    )


def test_operator_of_another_shape():
    refuses("fails on these arguments", affine, jnp.ones((4, 5)), 0.5, y=Y)


def test_mask_outside_to_event():
    def body(x, y):
        with handlers.mask(mask=jnp.array([True, False, True])):
            normal(x, y)

    refuses("'y': .*leave out .to_event", make(body), jnp.ones(3))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_observed_value_not_finite(bad):
    refuses("'y': the observed value has NaN or infinite", affine, A, 0.5, y=Y.at[2].set(bad))


def test_everything_masked():
    def body(x, y):
        with handlers.mask(mask=jnp.zeros(3, bool)):
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    refuses("every observed entry is masked", make(body), jnp.ones(3))


@pytest.mark.parametrize("noise", [0.0, -1.0, jnp.nan, jnp.inf])
def test_noise_not_positive(noise):
    refuses("'y': its scale is not positive", affine, A, noise, y=Y)


def test_covariance_not_positive_definite():
    def body(x, y):
        numpyro.sample("y", dist.MultivariateNormal(x, jnp.ones((3, 3)) - 2.0), obs=y)

    refuses("'y': its covariance is not positive definite", make(body), jnp.ones(3))


def test_value_outside_the_support():
    def body(x, y):
        numpyro.sample("y", dist.Bernoulli(logits=x), obs=y)

    refuses("'y': observed values lie outside the support", make(body), jnp.array([0, 1, 255]))


def test_log_likelihood_nan():
    refuses("'y': the log likelihood is NaN", make(lambda x, y: normal(jnp.log(x), y)), jnp.ones(3))


def test_degenerate_at_zero_is_no_error():
    model = make(lambda x, y: normal(x / jnp.linalg.norm(x), y, jnp.linalg.norm(x)))
    assert not read(model, (jnp.ones(3),)).is_linear


def test_complex():
    model = make(lambda x, y: normal(jnp.fft.fft(x), y))
    refuses("'y': the observed value is complex", model, jnp.ones(3) * 1j)
    refuses("'y': its log likelihood is complex64", model, jnp.ones(3))


def test_wrong_types():
    refuses(
        "fails on these arguments .TypeError",
        make(lambda x, y: normal(x + "1", y)),
        jnp.ones(3),
    )
    refuses("'y': the observed value is a list", make(normal), [1.0, [1.0, 1.0]])
    refuses("'y': the observed value is a list", make(normal), ["a", "b", "c"])
    refuses("type set is neither an array nor hashable", make(normal), {1, 2})
    refuses("does not hold numbers", make(normal), np.array(["a", "b", "c"]))


def test_random_numbers_inside_the_model():
    def body(x, y):
        normal(x + dist.Normal().sample(numpyro.prng_key(), (3,)), y)

    refuses(r"numpyro.prng_key\(\), .*one draw would be frozen", make(body), jnp.ones(3))


@pytest.mark.parametrize("size", [1e6, 1e30])
def test_data_in_other_units(size):
    """At 1e30 the squares overflow, and the message stays."""
    refuses("'y': observed values lie far outside", affine, A, 0.5, y=size * Y)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("", 1.0, "the name '', which a netCDF file cannot hold"),
        ("f/x", 1.0, "'f/x'.*divider='.'"),
        ("particle", 1.0, "'particle'.*choose another"),
        ("f", {"a": 1.0}, "'f': its value is a dict; record an array"),
        ("f", jnp.fft.fft(jnp.ones(3)), "'f': its value is complex"),
    ],
)
def test_sites_that_cannot_be_stored(name, value, match):
    def body(x, y):
        numpyro.deterministic(name, value)
        normal(x, y)

    refuses(match, make(body), Y[:3])


def test_arguments_not_supplied():
    refuses("missing a required argument: 'noise'; pass its arguments", affine, A)
    refuses("unexpected keyword argument 'z'", affine, A, 0.5, Y, z=1)


def test_names_of_the_axes_of_the_file():
    def body(x, y):
        numpyro.deterministic("x_dim_0", 2.0 * x)
        normal(x, y)

    refuses("site 'x_dim_0': the posterior file uses that name", make(body), jnp.ones(3))


def test_model_that_cannot_be_traced():
    refuses(
        "not under jax.jit and jax.vmap", make(lambda x, y: normal(np.asarray(x), y)), jnp.ones(3)
    )


def test_declared_linear_without_gaussian():
    def body(x, y):
        numpyro.sample("y", dist.Laplace(x, 1.0).to_event(1), obs=y)

    refuses(r"linear=True, but sites \['y'\]", make(body), jnp.ones(3), linear=True)
