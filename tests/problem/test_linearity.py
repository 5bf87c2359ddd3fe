"""Which observations are taken for linear-Gaussian."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from smcdiff.errors import InputError
from smcdiff.priors import Gaussian
from smcdiff.problem import read
from tests.problem.models import PRIOR, A, Y, affine, assert_residual_matches, observing

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
    assert not observing(NONLINEAR[name]).is_linear


def test_probe_is_at_the_scale_of_the_prior():
    wide = Gaussian(jnp.full(3, 1000.0), 1e4)

    def model(y):
        x = numpyro.sample("x", wide)
        staircase = jax.lax.stop_gradient(jnp.floor(x / 50.0)) * 50.0
        numpyro.sample("y", dist.Normal(staircase, 1.0).to_event(1), obs=y)

    assert not read(model, (jnp.ones(3),)).is_linear


@pytest.mark.parametrize("what", ["scale", "mask", "weight"])
def test_everything_but_the_mean_must_not_depend_on_x(what):
    def model(y):
        x = numpyro.sample("x", PRIOR)
        weight = 1.0 + x[0] ** 2 if what == "weight" else 1.0
        mask = jnp.broadcast_to(x[0] > -9.0, (4,)) if what == "mask" else jnp.ones(4, bool)
        scale = jnp.exp(x[0]) if what == "scale" else 1.0
        with handlers.mask(mask=mask), handlers.scale(scale=weight):
            numpyro.sample("y", dist.Normal(A @ x, scale), obs=y)

    assert not read(model, (Y,)).is_linear


@pytest.mark.parametrize("name", ["square", "relu", "sort", "normalised"])
def test_a_declaration_that_is_wrong_is_refused(name):
    def model(y):
        mean = NONLINEAR[name](numpyro.sample("x", PRIOR))
        numpyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)

    with pytest.raises(InputError, match="linear=True, but the mean of site 'y' is not affine"):
        read(model, (Y,), linear=True)


def test_a_mean_without_a_forward_derivative():
    @jax.custom_vjp
    def forward(x):
        return A @ x

    forward.defvjp(lambda x: (A @ x, None), lambda _, g: (g @ A,))

    def model(y):
        mean = forward(numpyro.sample("x", PRIOR))
        numpyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)

    assert not read(model, (Y,)).is_linear
    with pytest.raises(InputError, match="no forward derivative .*custom_jvp"):
        read(model, (Y,), linear=True)


def test_linear_declared_and_denied():
    def hidden(operator, y):
        x = numpyro.sample("x", PRIOR)
        mean = operator @ x + x[0] ** 2 - x[0] * x[0]  # cancels, which no test of ours can see
        numpyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)

    assert not read(hidden, (A, Y)).is_linear
    assert_residual_matches(read(hidden, (A, Y), linear=True))
    denied = read(affine, (A, 0.5, Y), linear=False)
    assert not denied.is_linear
    with pytest.raises(InputError, match="not linear-Gaussian"):
        denied.linear_observation()


def _factor(y):
    x = numpyro.sample("x", PRIOR)
    numpyro.factor("f", 3.0 - 0.5 * jnp.sum((y[:2] - A[:2] @ x) ** 2 / jnp.array([0.3, 2.0])))


class OwnNormal(dist.Normal):
    """What `dist.Normal` is, under another name."""


def _own(y):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", OwnNormal(A @ x, 0.5).to_event(1), obs=y)


@pytest.mark.parametrize(("model", "rank"), [(_factor, 2), (_own, 3)])
def test_a_quadratic_log_likelihood_is_linear_gaussian(model, rank):
    """However it is written; four rows of three columns see three directions."""
    problem = read(model, (Y,))
    assert_residual_matches(problem)
    assert problem.num_observations == problem.linear_observation().size == rank
    assert not read(model, (Y,), linear=False).is_linear


@pytest.mark.parametrize(
    "value",
    [
        lambda x: -jnp.sum(jnp.abs(x)),
        lambda x: jnp.sum(x**2),  # convex: no density of an observation
        lambda x: -jnp.sum(x**4),
        lambda x: -0.5 * jnp.sum(jnp.round(x) ** 2),
        lambda x: -0.5 * jnp.sum(jnp.clip(x, -0.1, 0.1) ** 2),
        lambda x: jnp.sum(x),  # flat: no direction is observed
    ],
)
def test_other_factors_are_not_taken_for_it(value):
    def model():
        numpyro.factor("f", value(numpyro.sample("x", PRIOR)))

    assert not read(model).is_linear
    with pytest.raises(InputError, match="not found to be quadratic"):
        read(model, linear=True)
