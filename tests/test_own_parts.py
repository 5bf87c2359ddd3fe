"""The examples of docs/examples: parts of a user's own, against exact answers."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, exact, kernels, priors, proposals, twists

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
PRIOR = priors.GaussianMixture(
    jnp.array([0.3, 0.7]), jnp.array([[-1.0, 0.5], [1.0, -0.5]]), jnp.array([0.2, 0.4])
)
MATRIX, Y = jnp.array([[1.0, 0.5]]), jnp.array([0.4])


def example(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def model(prior, operator, noise, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator(x), noise).to_event(), obs=y)


def smc(proposal=None, **options):
    return SMC(model, proposal, **{"num_particles": 128, "num_steps": 16, "progress_bar": False,
                                   **options})  # fmt: skip


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_at_most_forty_lines(file):
    assert len(file.read_text().splitlines()) <= 40


@pytest.mark.parametrize(
    "make",
    [
        lambda: example("proposal")["Nudged"](),
        lambda: proposals.Twisted(twist=example("twist")["Annealed"]()),
        lambda: proposals.Bootstrap(twist=example("twist")["Annealed"]()),
    ],
    ids=["proposal", "twist", "twist, weighed alone"],
)
def test_evidence(make):
    """The mean of Z_hat / Z over 64 chains is 1 within three standard errors, each below 0.02."""
    posterior = smc(make(), num_chains=64).run(
        jax.random.key(0), PRIOR, lambda x: MATRIX @ x, 0.5, y=Y
    )
    truth = exact.linear_gaussian_posterior(PRIOR, MATRIX, Y, 0.5)
    ratios = np.exp(posterior.log_evidence - truth.log_evidence)
    error = ratios.std(ddof=1) / 8
    assert abs(ratios.mean() - 1.0) < 3 * error < 0.06


def test_prior():
    """Three pixels, every posterior probability by enumeration; 200 steps leave about 0.01."""
    prior = example("prior")["Binary"](jnp.array([0.2, 0.5, 0.7]))
    mixing, y = jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, -1.0]]), jnp.array([0.5, 0.3])
    posterior = smc(proposals.Twisted(), num_particles=2000, num_steps=200).run(
        jax.random.key(0), prior, lambda x: mixing @ x, 0.7, y=y
    )
    x = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
    probability = np.asarray(prior.probability)
    probabilities = np.prod(np.where(x > 0, probability, 1.0 - probability), axis=1)
    weights = probabilities * np.exp(-0.5 * np.sum((y[None] - x @ mixing.T) ** 2, axis=1) / 0.7**2)
    expected = weights @ x / weights.sum()
    np.testing.assert_allclose(posterior.mean()["x"], expected, atol=0.08)
    evidence = np.log(weights.sum() / (2 * np.pi * 0.7**2))
    np.testing.assert_allclose(posterior.log_evidence, evidence, atol=0.1)
    assert np.all(np.abs(np.abs(posterior.samples["x"]) - 1.0) < 0.1)


@pytest.mark.slow
def test_operator():
    """It is recognised in the model, and no matrix of it is needed; exact for a Gaussian."""
    operator = example("operator")["CosineCoefficients"]((6, 6), 3)
    matrix = operator.as_matrix()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(9), atol=1e-5)
    prior = priors.Gaussian(jnp.zeros((6, 6)), 1.0)
    y = operator(prior.sample(jax.random.key(1)))
    proposal = proposals.LanczosMomentMatched(twist=twists.Lanczos(9))  # as many as there are rows
    posterior = smc(proposal, num_chains=16, kernel=kernels.Exact()).run(
        jax.random.key(0), prior, operator, 0.5, y=y
    )
    truth = exact.linear_gaussian_posterior(prior, operator, y, 0.5)
    ratios = np.exp(posterior.log_evidence - truth.log_evidence)
    assert abs(ratios.mean() - 1.0) < 3 * ratios.std(ddof=1) / 4 + 1e-3
