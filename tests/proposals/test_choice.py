"""Which proposal is chosen for which structure, and that the reason says so."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import priors, proposals, schedules
from smcdiff.model import read

ANALYTIC = priors.Gaussian(jnp.zeros(100), 1.0)
LEARNED = priors.DiffusionPrior(lambda x, t: 0.5 * x, schedules.Cosine(), (100,))


def black_box(x):
    shape = jax.ShapeDtypeStruct((2,), x.dtype)
    return jax.pure_callback(lambda x: np.asarray(x[:2]) ** 2, shape, x, vmap_method="sequential")


@pytest.mark.parametrize(
    ("prior", "mean", "size", "expected", "word"),
    [
        (ANALYTIC, lambda x: x[:4], 4, proposals.MomentMatched, "4 entries"),
        (LEARNED, lambda x: x[:4], 4, proposals.MomentMatched, "4 entries"),
        (ANALYTIC, lambda x: x[:90], 90, proposals.KrylovMomentMatched, "too many"),
        (LEARNED, lambda x: x[:90], 90, proposals.Twisted, "too many"),
        (LEARNED, lambda x: x[:2] ** 2, 2, proposals.Twisted, "differentiable"),
        (LEARNED, black_box, 2, proposals.Bootstrap, "no usable gradient"),
    ],
)
def test_choice(prior, mean, size, expected, word):
    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(mean(x), 0.3).to_event(1), obs=y)

    proposal, reason = proposals.choose(read(model, (jnp.zeros(size),)))
    assert type(proposal) is expected and word in reason


def test_choice_for_an_exact_observation():
    def model(y):
        x = numpyro.sample("x", ANALYTIC)
        numpyro.sample("y", dist.Delta(x).to_event(), obs=y)

    proposal, reason = proposals.choose(read(model, (jnp.zeros(100),)))
    assert type(proposal) is proposals.FPS and "'y' is observed without noise" in reason
