"""`contrastive_score` against the exact twist of a Gaussian, and what it says of twists."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import priors, proposals, twists
from smcdiff.diagnostics.contrast import contrastive_score
from smcdiff.errors import InputError
from tests.proposals.models import DENSE, MIXTURE, model

COVARIANCE = jnp.array([[1.5, 0.4, 0.0], [0.4, 1.0, -0.3], [0.0, -0.3, 0.6]])
GAUSSIAN = priors.Gaussian(jnp.array([1.0, -1.0, 0.0]), COVARIANCE)


def _score(prior, twist, noise=0.3, num_paths=64):
    return contrastive_score(
        jax.random.key(0), model, twist, prior, DENSE, jnp.full(2, noise),
        num_paths=num_paths, num_steps=8,
    )  # fmt: skip


def test_a_twist_that_knows_nothing_scores_zero():
    found = _score(GAUSSIAN, twists.Flat())
    np.testing.assert_allclose(found.score, 0.0, atol=1e-5)


def test_the_exact_twist_tells_as_much_as_there_is_to_know():
    """I(x_t; y) of a Gaussian is known; the score of the exact twist is near it while it is small.

    (It is bounded by log P = 4.2, and biased down by some I^2 / P.)
    """
    found = _score(GAUSSIAN, twists.MomentMatched(), noise=1.0)
    covariance = np.asarray(COVARIANCE)
    marginal = np.asarray(DENSE) @ covariance @ np.asarray(DENSE).T + np.eye(2)
    for log_snr, score, error in zip(*found, strict=True):
        snr = np.exp(log_snr)
        left = np.linalg.inv(np.linalg.inv(covariance) + snr * np.eye(3))
        given = np.asarray(DENSE) @ left @ np.asarray(DENSE).T + np.eye(2)
        information = 0.5 * np.log(np.linalg.det(marginal) / np.linalg.det(given))
        if information < 1.5:
            assert abs(score - information) < 4 * error + 0.1
    assert found.score[-1] > found.score[0]


@pytest.mark.slow
def test_the_better_twist_scores_higher():
    """`Likelihood` is far too sure at high noise, and a wrong scale of the noise is worse still."""
    exact = _score(MIXTURE, twists.MomentMatched())
    sure = _score(MIXTURE, twists.Likelihood())
    middle = np.abs(exact.log_snr) < 3.0
    # The same paths and data: the difference has a smaller error than either.
    assert np.all(sure.score[middle] < exact.score[middle])


def test_messages():
    with pytest.raises(InputError, match="num_paths is 1; it must be at least 2"):
        _score(GAUSSIAN, twists.Flat(), num_paths=1)

    with pytest.raises(InputError, match="FPS holds its particles to a path of y"):
        _score(GAUSSIAN, proposals.FPS())

    def no_data(prior):
        numpyro.sample("x", prior)

    with pytest.raises(InputError, match="leave the observations out of the call"):
        contrastive_score(jax.random.key(0), no_data, twists.Flat(), GAUSSIAN)

    def squared(prior, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x**2, 1.0).to_event(1), obs=y)

    with pytest.raises(InputError, match="linear"):
        contrastive_score(jax.random.key(0), squared, twists.MomentMatched(), GAUSSIAN)
