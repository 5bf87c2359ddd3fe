"""`Posterior`: pooling over chains, draws, ArviZ, and the habits of NumPyro's users."""

import dataclasses

import jax
import numpy as np
import pytest
from numpyro.infer import Predictive
from numpyro.infer.util import log_likelihood

from smcdiff import InputError
from tests.results.records import Y, importance, lopsided, model, record


@pytest.fixture(scope="module")
def posterior():
    return importance()


def test_chains_are_pooled_by_their_evidence():
    pooled = lopsided()
    np.testing.assert_allclose(pooled.pooled_weights, [[1 / 16, 3 / 16], [3 / 16, 9 / 16]])
    np.testing.assert_allclose(pooled.mean()["x"], 0.25 * 0.75 + 0.75 * 10.75)
    unweighted = dataclasses.replace(pooled, weighted=False)
    np.testing.assert_allclose(unweighted.mean()["x"], 0.5 * 0.75 + 0.5 * 10.75)


def test_chains_that_count_alike_keep_their_own_weights():
    alike = dataclasses.replace(lopsided(), chains_alike=True)
    np.testing.assert_allclose(alike.pooled_weights, [[1 / 8, 3 / 8], [1 / 8, 3 / 8]])
    np.testing.assert_allclose(alike.mean()["x"], 0.5 * 0.75 + 0.5 * 10.75)


def test_moments_of_an_exact_posterior(posterior):
    """Posterior N(0.8 y, 0.2); 160 effective particles leave 0.04 of the mean."""
    np.testing.assert_allclose(posterior.mean()["x"], 0.8 * Y, atol=0.15)
    np.testing.assert_allclose(posterior.std()["x"], 0.2**0.5, atol=0.1)
    assert posterior.mean()["energy"].shape == ()


def test_resample_follows_the_weights():
    draws = lopsided().resample(jax.random.key(0), 1600)["x"]
    values, counts = np.unique(np.asarray(draws), return_counts=True)
    np.testing.assert_array_equal(values, [0.0, 1.0, 10.0, 11.0])
    assert np.all(np.abs(counts - 100 * np.array([1, 3, 3, 9])) <= 1)  # systematic
    assert lopsided().resample(jax.random.key(0), np.int64(3))["x"].shape == (3,)


@pytest.mark.parametrize("n", [0, -1, True])
def test_resample_wants_a_number_of_draws(n):
    with pytest.raises(InputError, match=f"n is {n}"):
        lopsided().resample(jax.random.key(0), n)


def test_get_samples_are_equally_weighted(posterior):
    draws = posterior.get_samples()
    assert draws["x"].shape == (2000, 2) and draws["energy"].shape == (2000,)
    np.testing.assert_allclose(draws["x"].mean(0), posterior.mean()["x"], atol=0.02)
    np.testing.assert_array_equal(draws["x"], posterior.get_samples()["x"])
    np.testing.assert_allclose((draws["x"] ** 2).sum(-1), draws["energy"], rtol=1e-5)


def test_get_samples_by_chain_keep_each_chain_to_itself():
    draws = lopsided().get_samples(group_by_chain=True)["x"]
    assert draws.shape == (2, 2)
    assert set(np.asarray(draws[0]).tolist()) <= {0.0, 1.0}
    assert set(np.asarray(draws[1]).tolist()) <= {10.0, 11.0}


def test_predictive_replicates_the_data(posterior):
    """Posterior N(0.8 y, 0.2), so y_rep has mean 0.8 y and variance 0.45."""
    y = Predictive(model, posterior.get_samples())(jax.random.key(2))["y"]
    np.testing.assert_allclose(y.mean(axis=0), 0.8 * Y, atol=0.15)
    np.testing.assert_allclose(y.std(axis=0), 0.45**0.5, atol=0.1)


def test_log_likelihood_is_numpyros(posterior):
    draws = posterior.get_samples(group_by_chain=True)
    expected = log_likelihood(model, draws, batch_ndims=2, y=Y)["y"]
    indices = posterior.equal_indices()
    ours = posterior.pointwise_log_likelihood["y"][np.arange(2)[:, None], indices]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    total = posterior.log_likelihood[np.arange(2)[:, None], indices]
    np.testing.assert_allclose(total, expected.sum(-1), rtol=1e-4)


def test_indexing_says_what_to_take(posterior):
    with pytest.raises(InputError, match=r"get_samples\(\)\['x'\].*posterior.samples\['x'\]"):
        posterior["x"]
    with pytest.raises(InputError):
        dict(posterior)


def test_repr_is_one_line():
    assert repr(record()).startswith("Posterior(sites={'x': (3,)}, 2 chains x 100 particles")
    assert "\n" not in repr(record())
    many = repr(record(np.zeros((30, 100))))
    assert "log_evidence=-1.10 to -1.00, final ESS=90.0 to 90.0" in many
