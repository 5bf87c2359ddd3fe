"""Reading NumPyro models: densities against closed forms, structure, compilation, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from smcdiff.errors import InputError
from smcdiff.model import Problem, read
from smcdiff.priors import DiffusionPrior, Gaussian
from smcdiff.schedules import OrnsteinUhlenbeck

PRIOR = Gaussian(jnp.zeros(3), 1.0)
A = jax.random.normal(jax.random.key(5), (4, 3))
X = jnp.array([0.3, -1.2, 0.7])
Y = jnp.array([0.5, -0.2, 1.0, 2.0])


def affine(operator, noise, y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(operator @ x, noise).to_event(1), obs=y)


def observing(mean, noise=0.5, y=Y):
    """A model of y with the given mean function, read."""

    def model(y):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(mean(x), noise).to_event(1), obs=y)

    return read(model, (y,))


def assert_residual_matches(problem: Problem):
    """log_likelihood(x) + |residual(x)|^2 / 2 is the same for all x."""
    assert problem.linear
    points = jax.random.normal(jax.random.key(0), (5, *problem.event_shape))
    values = jax.jit(jax.vmap(problem.log_likelihood))(points)
    residuals = jax.jit(jax.vmap(problem.residual))(points)
    assert residuals.shape == (5, problem.num_observations)
    constants = values + 0.5 * jnp.sum(residuals**2, axis=1)
    np.testing.assert_allclose(constants, constants[0], rtol=1e-4, atol=1e-4)


# What a problem holds


def test_log_likelihood_is_that_of_the_observed_sites():
    problem = read(affine, (A, 0.5), {"y": Y})
    expected = dist.Normal(A @ X, 0.5).log_prob(Y).sum()
    np.testing.assert_allclose(problem.log_likelihood(X), expected, rtol=1e-5)
    assert (problem.site, problem.observed_sites) == ("x", ("y",))
    assert (problem.event_shape, problem.num_observations) == ((3,), 4)
    np.testing.assert_array_equal(problem.observations()["y"], Y)
    assert problem.pointwise_log_likelihood(X)["y"].shape == ()
    gradient = jax.grad(problem.log_likelihood)(X)
    np.testing.assert_allclose(gradient, A.T @ (Y - A @ X) / 0.25, rtol=1e-4)
    assert_residual_matches(problem)


def test_scale_mask_factor_plate_and_deterministic_sites():
    keep = jnp.array([True, False, True, True])

    def model(y, z):
        x = numpyro.sample("x", PRIOR)
        mean = numpyro.deterministic("mean", A @ x)
        with handlers.scale(scale=0.25), handlers.mask(mask=keep), numpyro.plate("rows", 4):
            numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)
        numpyro.sample("z", dist.StudentT(3.0, x[0], 1.0), obs=z)
        numpyro.factor("f", -(x[1] ** 4))

    y = Y.at[1].set(jnp.nan)  # a masked NaN is neither an error nor a NaN gradient
    problem = read(model, (y, 0.1))
    terms = dist.Normal(A @ X, 0.5).log_prob(Y)
    expected = 0.25 * jnp.sum(jnp.where(keep, terms, 0.0))
    expected += dist.StudentT(3.0, X[0], 1.0).log_prob(0.1) - X[1] ** 4
    np.testing.assert_allclose(problem.log_likelihood(X), expected, rtol=1e-5)
    assert problem.observed_sites == ("y", "z", "f")
    assert set(problem.observations()) == {"y", "z"}
    assert problem.num_observations == 5
    assert not problem.linear
    assert np.all(np.isfinite(jax.jit(jax.grad(problem.log_likelihood))(X)))


@pytest.mark.parametrize("inside", [True, False])
def test_residual_with_masks_scales_and_several_sites(inside):
    keep = jnp.array([True, False, True, True])
    covariance = jnp.array([[1.0, 0.5], [0.5, 2.0]])

    def model(y, z):
        x = numpyro.sample("x", PRIOR)
        normal = dist.Normal(A @ x + 1.0, jnp.arange(1.0, 5.0))
        if inside:
            numpyro.sample("y", normal.mask(keep).to_event(1), obs=y)
        else:
            with handlers.mask(mask=keep):
                numpyro.sample("y", normal, obs=y)
        with handlers.scale(scale=3.0):
            numpyro.sample("z", dist.MultivariateNormal(x[:2], covariance), obs=z)

    problem = read(model, (Y.at[1].set(jnp.nan), jnp.ones(2)))
    assert_residual_matches(problem)
    residual = jax.jit(problem.residual)(X)
    assert residual[1] == 0.0
    white = jnp.linalg.solve(jnp.linalg.cholesky(covariance), 1.0 - X[:2])
    np.testing.assert_allclose(residual[4:], jnp.sqrt(3.0) * white, rtol=1e-5)
    jacobian = jax.jit(jax.jacobian(problem.residual))(X)
    assert np.all(np.isfinite(jacobian)) and np.all(jacobian[1] == 0.0)


def test_mask_expanded_by_a_plate_keeps_its_axis():
    keep = jnp.array([True, False, True])

    def model(y):
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("repeats", 3, dim=-2):
            numpyro.sample("y", dist.Normal(x, 1.0).mask(keep), obs=y)

    problem = read(model, (jnp.ones((3, 3)),))
    assert_residual_matches(problem)
    np.testing.assert_array_equal(problem.residual(X).reshape(3, 3)[:, 1], 0.0)


def test_batched_multivariate_normal_in_a_masked_plate():
    def model(y):
        x = numpyro.sample("x", PRIOR)
        means = jnp.stack([x, 2.0 * x])
        with numpyro.plate("rows", 2), handlers.mask(mask=jnp.array([True, False])):
            numpyro.sample("y", dist.MultivariateNormal(means, jnp.eye(3)), obs=y)

    problem = read(model, (jnp.ones((2, 3)),))
    assert_residual_matches(problem)
    np.testing.assert_array_equal(problem.residual(X)[3:], 0.0)


def test_reading_never_samples_the_prior():
    def denoiser(x, t):
        assert isinstance(x, jax.core.Tracer), "the network ran"
        return x

    prior = DiffusionPrior(denoiser, OrnsteinUhlenbeck(), (2, 2))

    def model(y):
        x = numpyro.sample("image", prior)
        numpyro.sample("y", dist.Normal(x, 0.1).to_event(2), obs=y)

    problem = read(model, (jnp.ones((2, 2)),))
    assert (problem.site, problem.event_shape, problem.linear) == ("image", (2, 2), True)


# Compiled once


def test_other_data_of_the_same_shapes_does_not_compile_again():
    count = 0

    @jax.jit
    def run(problem, x):
        nonlocal count
        count += 1
        return problem.log_likelihood(x), problem.residual(x), problem.prior.denoise(x, 0.5)

    def model(prior, operator, settings, noise, power, y=None):
        x = numpyro.sample("x", prior)
        mean = settings["gain"] * (operator @ x) ** power
        numpyro.sample("y", dist.Normal(mean, noise.scale).to_event(1), obs=y)

    def problem(seed, power=1):
        keys = jax.random.split(jax.random.key(seed), 3)
        prior = Gaussian(jax.random.normal(keys[0], (3,)), 1.0 + seed)
        operator = np.asarray(jax.random.normal(keys[1], (4, 3)))
        y = jax.random.normal(keys[2], (4,))
        noise = dist.HalfNormal(1.0 + seed)
        return read(model, (prior, operator, {"gain": 1.5 + seed}, noise, power), {"y": y})

    first, second = problem(0), problem(1)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    values = [run(p, X) for p in (first, second)]
    assert count == 1
    for got, p in zip(values, (first, second), strict=True):
        np.testing.assert_allclose(got[0], p.log_likelihood(X), rtol=1e-5)
    assert not np.allclose(values[0][2], values[1][2])  # the prior entered as an argument
    assert jax.tree.structure(problem(0, power=2)) != jax.tree.structure(first)


def test_prior_of_the_site_is_a_leaf():
    weights = jnp.arange(9.0).reshape(3, 3)
    denoiser = jax.tree_util.Partial(lambda w, x, t: w @ x, weights)
    prior = DiffusionPrior(denoiser, OrnsteinUhlenbeck(), (3,))

    def model(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("x", prior), 1.0).to_event(1), obs=y)

    problem = read(model, (jnp.ones(3),))
    assert any(leaf is weights for leaf in jax.tree.leaves(problem))


# Linear-Gaussian or not

LINEAR = {
    "matrix": lambda x: A @ x,
    "affine": lambda x: 3.0 - A @ x,
    "fft": lambda x: jnp.fft.rfft(x, 6).real,
    "cumsum": lambda x: jnp.cumsum(jnp.pad(x, (0, 1))),
    "convolution": lambda x: jnp.convolve(x, jnp.array([0.2, 0.5]), mode="full"),
    "jitted": jax.jit(lambda x: A @ x),
    "scan": lambda x: jax.lax.scan(lambda c, row: (c, row @ x), 0.0, A)[1],
}
NONLINEAR = {
    "square": lambda x: (A @ x) ** 2,
    "round": lambda x: jnp.round(255.0 * A @ x) / 255.0,
    "stop_gradient": lambda x: jax.lax.stop_gradient(A @ x),
    "clip": lambda x: jnp.clip(A @ x, -1e3, 1e3),
    "relu": lambda x: jax.nn.relu(A @ x),
    "sort": lambda x: jnp.sort(A @ x),
    "normalised": lambda x: A @ x / jnp.linalg.norm(x),
    "straight through": lambda x: jnp.sign(A @ x) + A @ x - jax.lax.stop_gradient(A @ x),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_means_are_detected(name):
    assert_residual_matches(observing(LINEAR[name]))


@pytest.mark.parametrize("name", NONLINEAR)
def test_nonlinear_means_are_not_taken_for_linear(name):
    assert not observing(NONLINEAR[name]).linear


def test_probe_is_at_the_scale_of_the_prior():
    wide = Gaussian(jnp.full(3, 1000.0), 1e4)

    def model(y):
        x = numpyro.sample("x", wide)
        staircase = jax.lax.stop_gradient(jnp.floor(x / 50.0)) * 50.0
        numpyro.sample("y", dist.Normal(staircase, 1.0).to_event(1), obs=y)

    assert not read(model, (jnp.ones(3),)).linear


@pytest.mark.parametrize("what", ["scale", "mask", "weight"])
def test_everything_but_the_mean_must_not_depend_on_x(what):
    def model(y):
        x = numpyro.sample("x", PRIOR)
        weight = 1.0 + x[0] ** 2 if what == "weight" else 1.0
        mask = jnp.broadcast_to(x[0] > -9.0, (4,)) if what == "mask" else jnp.ones(4, bool)
        scale = jnp.exp(x[0]) if what == "scale" else 1.0
        with handlers.mask(mask=mask):
            numpyro.sample("y", dist.Normal(A @ x, scale), obs=y)
        numpyro.factor("f", 0.0 * weight)

    assert not read(model, (Y,)).linear


def test_linear_declared_and_denied():
    def hidden(operator, y):
        x = numpyro.sample("x", PRIOR)
        mean = operator @ x + x[0] ** 2 - x[0] * x[0]  # cancels, which no test of ours can see
        numpyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)

    assert not read(hidden, (A, Y)).linear
    assert_residual_matches(read(hidden, (A, Y), linear=True))
    denied = read(affine, (A, 0.5, Y), linear=False)
    assert not denied.linear
    with pytest.raises(InputError, match="not linear-Gaussian"):
        denied.residual(X)


# Errors


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


def test_several_diffusion_sites():
    def model(y):
        normal(numpyro.sample("x", PRIOR) + numpyro.sample("w", PRIOR), y)

    refuses(r"\['x', 'w'\] all have diffusion priors", model, jnp.ones(3))


def test_y_not_given():
    refuses(r"no site is observed; pass data for \['y'\]", affine, A, 0.5)
    refuses(r"no site is observed; pass data for \['y'\]", affine, A, 0.5, y=None)


def test_nothing_observed():
    refuses("no observed site; pass its data", make(lambda x: None))


def test_nuisances():
    def model(y):
        x = numpyro.sample("x", PRIOR)
        normal(x, y, numpyro.sample("noise", dist.HalfNormal(1.0)))

    refuses(r"latent sites \['noise'\] .*not supported yet", model, jnp.ones(3))
    problem = read(handlers.condition(model, {"noise": 0.5}), (jnp.ones(3),))
    assert problem.observed_sites == ("noise", "y")
    assert not problem.linear  # the HalfNormal term counts, and is no Gaussian


def test_discrete_latents():
    def model(y):
        x = numpyro.sample("x", PRIOR)
        normal(x * numpyro.sample("k", dist.Bernoulli(0.5)), y)

    refuses(r"discrete latent sites \['k'\]", model, jnp.ones(3))


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
    refuses("'x': a diffusion prior in a plate", make(normal, prior), jnp.ones((2, 3)))


def test_prior_in_a_plate():
    def model(y):
        with numpyro.plate("images", 2):
            x = numpyro.sample("x", PRIOR)
        normal(x, y)

    refuses("'x': a diffusion prior in a plate", model, jnp.ones((2, 3)))


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
    assert not read(model, (jnp.ones(3),)).linear


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
    refuses("'y': the observed value is a list", make(normal), [1.0, 1.0, 1.0])
    refuses("type set is neither an array nor hashable", make(normal), {1, 2})
    refuses("does not hold numbers", make(normal), np.array(["a", "b", "c"]))


def test_arguments_not_supplied():
    refuses("missing a required argument: 'noise'; pass its arguments", affine, A)
    refuses("unexpected keyword argument 'z'", affine, A, 0.5, Y, z=1)


def test_model_that_cannot_be_traced():
    refuses("not under jax.jit", make(lambda x, y: normal(np.asarray(x), y)), jnp.ones(3))


def test_declared_linear_without_gaussian():
    def body(x, y):
        numpyro.sample("y", dist.Laplace(x, 1.0).to_event(1), obs=y)

    refuses(r"linear=True, but sites \['y'\]", make(body), jnp.ones(3), linear=True)
