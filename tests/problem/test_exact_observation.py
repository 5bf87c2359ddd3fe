"""Exact observations, `dist.Delta(A(x))`: what is read, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from smcdiff.errors import InputError
from smcdiff.priors import Gaussian
from smcdiff.problem import read
from tests.problem.models import PRIOR, X, affine

A = jax.random.normal(jax.random.key(5), (2, 3))
Y = jnp.array([0.5, -0.2])


def problem(mean, y, law=lambda mean: dist.Delta(mean).to_event(), prior=PRIOR, **options):
    """An exact observation of a mean, read."""

    def model(y):
        numpyro.sample("y", law(mean(numpyro.sample("x", prior))), obs=y)

    return read(model, (y,), **options)


def exact(mean, y):
    return numpyro.sample("y", dist.Delta(mean).to_event(), obs=y)


@pytest.mark.parametrize(
    "law", [lambda mean: dist.Delta(mean).to_event(1), lambda mean: dist.Delta(mean, event_dim=1)]
)
def test_whitened_residual_is_the_misfit(law):
    found = problem(lambda x: A @ x + 1.0, Y, law)
    assert (found.is_noise_free, found.is_linear, found.num_observations) == (True, True, 2)
    np.testing.assert_allclose(found.linear_observation().residual(X), Y - A @ X - 1.0, rtol=1e-5)
    np.testing.assert_allclose(found.observe_gaussian(X).misfit, Y - A @ X - 1.0, rtol=1e-5)
    np.testing.assert_array_equal(found.observe().values["y"], Y)
    assert found.log_likelihood(X) == 0.0


def test_noise_is_the_default():
    assert not read(affine, (A, 0.5, Y)).is_noise_free


def test_masks_plates_and_several_sites():
    def model(y, z):
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("rows", 2), handlers.mask(mask=jnp.array([True, False])):
            numpyro.sample("y", dist.Delta(A @ x), obs=y)
        numpyro.sample("z", dist.Delta(x[2]), obs=z)

    found = read(model, (Y.at[1].set(jnp.nan), 0.3))
    assert found.is_noise_free and found.observed_sites == ("y", "z")
    expected = [Y[0] - A[0] @ X, 0.0, 0.3 - X[2]]
    np.testing.assert_allclose(found.linear_observation().residual(X), expected, rtol=1e-5)
    assert np.all(np.isfinite(jax.jacobian(lambda x: found.observe_gaussian(x).whitened)(X)))


def test_rows_that_agree_or_see_nothing_are_no_contradiction():
    problem(lambda x: jnp.concatenate([A @ x, A @ x]), jnp.concatenate([Y, Y]))
    problem(lambda x: jnp.append(A @ x, 0.0 * x[0]), jnp.append(Y, 0.0))
    problem(lambda x: jnp.tile(x, 3), jnp.tile(X, 3))  # more rows than columns


def test_data_of_a_blur_that_loses_fine_detail_are_no_contradiction():
    """Singular values from 1 to 1e-12: y = A x in float32 is in the range up to rounding only."""
    size = 64
    offsets = np.subtract.outer(np.arange(size), np.arange(size))
    blur = jnp.asarray(np.exp(-0.5 * (offsets / 3.0) ** 2), jnp.float32)
    x = jax.random.normal(jax.random.key(0), (size,))
    assert problem(lambda x: blur @ x, blur @ x, prior=Gaussian(jnp.zeros(size), 1.0)).is_linear


@pytest.mark.parametrize(
    ("mean", "y", "match"),
    [
        (lambda x: (A @ x)[jnp.array([0, 1, 0])], jnp.array([0.5, 0, 0.6]), "misses an entry by"),
        (lambda x: jnp.tile(x, 2), jnp.arange(6.0), "no 'x' satisfies"),
        (lambda x: jnp.append(A @ x, 0.0 * x[0]), jnp.append(Y, 1.0), "far outside|no 'x'"),
        (lambda x: 0.0 * x, jnp.ones(3), "no 'x' satisfies"),
        (lambda x: A @ x, 1e6 * Y, "far outside what the prior"),
        (lambda x: (A @ x) ** 2, Y, r"'y': an exact observation \(Delta\) must be linear in 'x'"),
        (lambda x: A @ x * jnp.log(-(x[0] ** 2)), Y, "'y': its Delta is NaN or infinite"),
        (lambda x: jnp.fft.fft(x), jnp.ones(3), "'y': its value is complex"),
        (lambda x: A @ x, Y.at[0].set(jnp.nan), "'y': the observed value has NaN"),
        (lambda x: A @ x, jnp.ones(3), r"'y': the observed value has shape \(3,\)"),
    ],
)
def test_observations_that_are_refused(mean, y, match):
    with pytest.raises(InputError, match=match) as caught:
        problem(mean, y)
    assert "\n" not in str(caught.value)


def test_the_site_that_contradicts_is_named():
    def model(y, z):
        x = numpyro.sample("x", PRIOR)
        exact(A @ x, y)
        numpyro.sample("z", dist.Delta(jnp.stack([x[0], x[0]])).to_event(), obs=z)

    with pytest.raises(InputError, match="'z': no 'x' satisfies"):
        read(model, (Y, jnp.array([0.1, 0.4])))


def test_linear_denied_or_a_density_is_refused():
    with pytest.raises(InputError, match="must be linear"):
        problem(lambda x: A @ x, Y, linear=False)
    with pytest.raises(InputError, match="'y': the log_density of its Delta is not 0"):
        problem(lambda x: A @ x, Y, lambda mean: dist.Delta(mean, 1.0).to_event())


def test_exact_and_noisy_sites_do_not_mix():
    def model(y, z):
        x = numpyro.sample("x", PRIOR)
        exact(A @ x, y)
        numpyro.sample("z", dist.Normal(x[0], 1.0), obs=z)

    with pytest.raises(InputError, match=r"\['y'\] are observed without noise.*\['z'\] are not"):
        read(model, (Y, 0.1))


def test_scale_has_no_meaning():
    def model(y):
        x = numpyro.sample("x", PRIOR)
        with handlers.scale(scale=2.0):
            exact(A @ x, y)

    with pytest.raises(InputError, match="'y': handlers.scale has no meaning"):
        read(model, (Y,))


def test_noise_of_zero_names_the_remedy():
    with pytest.raises(InputError, match=r"'y': its scale is not positive .*dist\.Delta\(mean\)"):
        read(affine, (A, 0.0, Y))
