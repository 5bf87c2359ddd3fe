"""Which proposal is chosen for which structure, and that the reason says so."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, priors, proposals, schedules, twists
from smcdiff.problem import read

ANALYTIC = priors.Gaussian(np.zeros(100), 1.0)
LEARNED = priors.DiffusionPrior(lambda x, t: 0.5 * x, schedules.Cosine(), (100,))


def black_box(x):
    shape = jax.ShapeDtypeStruct((2,), x.dtype)
    return jax.pure_callback(lambda x: np.asarray(x[:2]) ** 2, shape, x, vmap_method="sequential")


def on_host(x, t):
    """As a network of another framework is called."""
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    half = lambda x: 0.5 * np.asarray(x)  # noqa: E731
    return jax.pure_callback(half, shape, x, vmap_method="expand_dims")


ON_HOST = priors.DiffusionPrior(on_host, schedules.Cosine(), (100,))


@pytest.mark.parametrize(
    ("prior", "mean", "size", "expected", "word"),
    [
        (ANALYTIC, lambda x: x[:4], 4, proposals.MomentMatched, "4 entries"),
        (LEARNED, lambda x: x[:4], 4, proposals.MomentMatched, "4 entries"),
        (ANALYTIC, lambda x: x[:90], 90, proposals.LanczosMomentMatched, "too many"),
        (LEARNED, lambda x: x[:90], 90, proposals.TwistedPath, "too many"),
        (LEARNED, lambda x: x[:2] ** 2, 2, proposals.Twisted, "differentiable"),
        (LEARNED, black_box, 2, proposals.Bootstrap, "no usable gradient"),
        (ON_HOST, lambda x: x[:4], 4, proposals.MCGDiff, "denoiser has no derivative"),
        (ON_HOST, lambda x: x[:2] ** 2, 2, proposals.Bootstrap, "denoiser has no derivative"),
    ],
)
def test_choice(prior, mean, size, expected, word):
    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(mean(x), 0.3).to_event(1), obs=y)

    proposal, reason = proposals.choose(read(model, (np.zeros(size, np.float32),)))
    assert type(proposal) is expected and word in reason


def test_too_many_observations_to_decompose(monkeypatch):
    """By a matrix of the user's own; a mask's decomposition is known whatever its size."""
    matrix = np.random.default_rng(0).normal(size=(90, 100)).astype(np.float32)

    def model(y):
        x = numpyro.sample("x", ANALYTIC)
        numpyro.sample("y", dist.Normal(matrix @ x, 0.3).to_event(1), obs=y)

    monkeypatch.setattr("smcdiff.twists._singular.LARGEST_DENSE", 80)
    proposal, _ = proposals.choose(read(model, (np.zeros(90, np.float32),)))
    assert proposal == proposals.KrylovMomentMatched(twist=twists.Krylov(floor=0.0))


def constrained():
    """x[0] > 1 under a standard normal: the evidence is that tail's probability, 0.1587."""
    x = numpyro.sample("x", priors.Gaussian(jnp.zeros(2), 1.0))
    numpyro.factor("above", jnp.where(x[0] > 1.0, 0.0, -jnp.inf))


def test_gradient_where_the_prior_is():
    """sqrt has none at 0, where the prior N(20, 1) has no mass."""

    def model(y):
        x = numpyro.sample("x", priors.Gaussian(jnp.full(2, 20.0), 1.0))
        numpyro.sample("y", dist.Normal(jnp.sqrt(x), 0.1).to_event(1), obs=y)

    assert proposals.choose(read(model, (jnp.full(2, 4.4),)))[0] == proposals.Twisted()


@pytest.mark.parametrize("twist", [twists.Flat(), twists.Likelihood(0.3)])
def test_evidence_of_a_constraint(twist):
    """Mean over 200 chains within 3 standard errors: a guess that is excluded kills no particle."""
    smc = SMC(
        constrained, proposals.Bootstrap(twist=twist), num_particles=64, num_steps=8,
        num_chains=200, progress_bar=False,
    )  # fmt: skip
    evidence = np.exp(smc.run(jax.random.key(0)).log_evidence)
    assert abs(evidence.mean() - 0.15866) < 3 * evidence.std() / 200**0.5


def test_choice_for_an_exact_observation():
    def model(y):
        x = numpyro.sample("x", ANALYTIC)
        numpyro.sample("y", dist.Delta(x).to_event(), obs=y)

    proposal, reason = proposals.choose(read(model, (jnp.zeros(100),)))
    assert type(proposal) is proposals.FPS and "'y' is observed without noise" in reason
