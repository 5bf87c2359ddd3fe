"""Arguments of the model are leaves: other data of the same shapes does not compile again."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff.diffusion.schedules import OrnsteinUhlenbeck
from smcdiff.errors import InputError
from smcdiff.priors import DiffusionPrior, Gaussian
from smcdiff.problem import _arguments as arguments
from smcdiff.problem import read
from tests.problem.models import PRIOR, X


def test_other_data_of_the_same_shapes_does_not_compile_again():
    count = 0

    @jax.jit
    def run(problem, x):
        nonlocal count
        count += 1
        return (
            problem.log_likelihood(x),
            problem.linear_observation().residual(x),
            problem.prior.denoise(x, 0.5),
        )

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
    prior = DiffusionPrior(denoiser, OrnsteinUhlenbeck(), (3,), probe=False)

    def model(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("x", prior), 1.0).to_event(1), obs=y)

    problem = read(model, (jnp.ones(3),))
    assert any(leaf is weights for leaf in jax.tree.leaves(problem))


def test_arrays_of_files():
    """Big-endian numbers, as FITS files have them, and extended precision."""
    y = np.array([1.0, 2.0])
    for given in (y.astype(">f4"), y.astype(">f8"), y.astype(">i4"), y.astype(np.longdouble)):
        (found,), _ = arguments.split((given,), {})
        np.testing.assert_array_equal(found, y)


def test_whole_numbers_as_data_of_a_continuous_site_are_floats():
    """Else other data of the same shape would be another program."""

    def model(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("x", PRIOR), 1.0).to_event(1), obs=y)

    whole, real = read(model, (np.array([1, 0, 2]),)), read(model, (np.ones(3),))
    assert jax.tree.structure(whole) == jax.tree.structure(real)
    for got, expected in zip(jax.tree.leaves(whole), jax.tree.leaves(real), strict=True):
        assert jnp.asarray(got).dtype == jnp.asarray(expected).dtype


def test_data_in_lists_are_arrays():
    """As NumPyro takes them; other data in a list are the same program, and other lists stay."""

    def model(sizes, y):
        assert sizes == [1, 3]
        mean = numpyro.sample("x", PRIOR).reshape(sizes)
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    by_list, other = read(model, ([1, 3],), {"y": [[1, 0, 2]]}), read(model, ([1, 3], [[4, 5, 6]]))
    by_array = read(model, ([1, 3],), {"y": np.array([[1, 0, 2]])})
    assert jax.tree.structure(by_list) == jax.tree.structure(by_array)
    np.testing.assert_array_equal(by_list.observe().values["y"], [[1.0, 0.0, 2.0]])
    np.testing.assert_array_equal(other.observe().values["y"], [[4.0, 5.0, 6.0]])


def test_an_array_that_was_changed_in_place_is_read_anew():
    y = np.zeros(3)
    (before,), _ = arguments.split((y,), {})
    y[:] = 1.0
    (after,), _ = arguments.split((y,), {})
    np.testing.assert_array_equal(before, 0.0)
    np.testing.assert_array_equal(after, 1.0)


def test_masked_arrays_are_refused():
    values = np.ma.masked_invalid([1.0, np.nan])
    with pytest.raises(InputError, match="whose mask JAX would drop.*numpyro.handlers.mask"):
        arguments.split((values,), {})
