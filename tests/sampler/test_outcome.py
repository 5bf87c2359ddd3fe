"""Runs that fail or go astray: what is raised or warned names the cause, and what helps."""

import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import (
    SMC,
    DegeneracyWarning,
    InputError,
    SamplingError,
    operators,
    priors,
    proposals,
    thresholding,
    twists,
)
from smcdiff.diffusion.schedules import Cosine
from smcdiff.smc import Checkpoint
from tests.proposals.models import isotropic
from tests.sampler.models import MATRIX, PRIOR, Y, model, run, sampler


class OutOfPaper(Exception):
    """What a user's own code may raise."""


@pytest.mark.parametrize("progress", [False, lambda *_: None])
def test_what_a_denoiser_outside_jax_raises_comes_out(progress, tmp_path, monkeypatch):
    """And not JAX's error; with a checkpoint the run goes on once the cause has gone."""
    monkeypatch.setattr("smcdiff.smc.segments.SECONDS", 0.0)

    def host(x, t):
        if os.environ.get("PAPER") == "out" and np.all(t < 0.6):
            raise OutOfPaper("tray 2")
        return np.asarray(0.5 * x)

    def denoiser(x, t):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(host, shape, x, t, vmap_method="expand_dims")

    prior = priors.DiffusionPrior(denoiser, Cosine(), (3,))
    smc = SMC(model, proposals.Bootstrap(), num_particles=16, num_steps=8, progress_bar=progress)
    arguments = (jax.random.key(0), prior, operators.Dense(MATRIX), 2.0)
    whole = smc.run(*arguments, y=Y)
    folder = Checkpoint(tmp_path / "run", every=0.0)
    monkeypatch.setenv("PAPER", "out")
    with pytest.raises(OutOfPaper, match="tray 2"):
        smc.run(*arguments, y=Y, checkpoint=folder)
    reached = max(int(entry.name) for entry in (tmp_path / "run").iterdir())
    assert 1 <= reached < 8
    monkeypatch.delenv("PAPER")
    again = smc.run(*arguments, y=Y, checkpoint=folder)
    np.testing.assert_array_equal(again.samples["x"], whole.samples["x"])


def test_what_a_likelihood_outside_jax_raises_is_named():
    def host(x):
        raise OutOfPaper("tray 2")

    def printed(y=None):
        x = numpyro.sample("x", PRIOR)
        mean = jax.pure_callback(host, x, x, vmap_method="expand_dims")
        numpyro.sample("y", dist.Normal(mean, 1.0).to_event(), obs=y)

    with pytest.raises(InputError, match=r"fails on these arguments \(OutOfPaper: tray 2\)"):
        SMC(printed, num_particles=16, num_steps=8).run(jax.random.key(0), y=jnp.zeros(3))


def test_denoiser_that_returns_nan_is_named():
    def denoiser(x, t):
        return 0.1 * x + jnp.where(t < 0.3, jnp.nan, 0.0)

    prior = priors.DiffusionPrior(denoiser, Cosine(), (3,))
    with pytest.raises(SamplingError, match=r"site 'x': at step .*denoiser returned NaN") as caught:
        run(sampler(proposals.Bootstrap()), prior=prior)
    assert "try more particles" not in str(caught.value)
    time = float(str(caught.value).split("prior.denoise(x, ")[1].split(")")[0])
    assert 0.0 < time < 0.3


@pytest.mark.parametrize(
    ("log_density", "message"),
    [
        (lambda x: jnp.where(x[0] > 0.0, jnp.nan, 0.0), "site 'odd' is NaN at .*, for example"),
        (
            lambda x: jnp.where(jnp.abs(x[0]) > 3.2, jnp.nan, 0.0),  # at none of the points
            "a weight was NaN or infinite.*debug_nans",
        ),
        (lambda x: jnp.where(jnp.abs(x[0]) > 2.0, jnp.inf, 0.0), r"site 'odd' is \+inf at"),
        (lambda x: jnp.where(x[0] < 30.0, -jnp.inf, 0.0), "had a positive weight.*more particles"),
    ],
)
def test_a_likelihood_that_fails_is_told_from_too_few_particles(log_density, message):
    def odd(y=None):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(2), 1.0))
        numpyro.factor("odd", log_density(x))

    smc = SMC(odd, proposals.Bootstrap(twist=twists.Flat()), num_particles=2000, num_steps=4,
              progress_bar=False)  # fmt: skip
    with pytest.raises(SamplingError, match=message) as caught:
        smc.run(jax.random.key(0))
    assert ("try more particles" in str(caught.value)) == ("positive" in message)


@pytest.mark.parametrize("weighted", [False, True])
def test_unstable_guidance_is_told_with_its_cure(weighted):
    """A step of 300 in units of a prior of scale 1; a smaller one is silent."""
    learned, _ = isotropic(jnp.zeros(3), 1.0)

    def sampled(scale):
        smc = sampler(proposals.DPS(scale=scale), num_particles=32, weighted=weighted)
        return run(smc, prior=learned)

    with pytest.warns(DegeneracyWarning, match=r"site 'x' lie .* prior widths .* smaller scale"):
        posterior = sampled(300.0)
    assert any("prior widths" in finding for finding in posterior.diagnose().findings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cured = sampled(0.3)
    assert np.all(cured.prior_widths < 5.0)
    assert not any("prior widths" in finding for finding in cured.diagnose().findings)


def growing(threshold=None):
    """N(0, I), by a network that is wrong beyond the data: m(x) grows as x^3."""
    learned, truth = isotropic(jnp.zeros(3), 1.0)

    def denoiser(x, t):
        mean = truth.denoise(x, t)
        return mean + 0.01 * mean**3

    return priors.DiffusionPrior(
        denoiser, learned.schedule, (3,), threshold=threshold, probe=False
    )  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
def test_guidance_that_ends_at_infinity(weighted):
    smc = sampler(proposals.DPS(scale=10.0), num_particles=32, num_steps=20, weighted=weighted)
    with pytest.raises(SamplingError, match="unstable; try a smaller scale of the guidance"):
        run(smc, prior=growing())


@pytest.mark.parametrize(
    ("proposal", "threshold"),
    [
        (proposals.DPS(scale=0.3), None),
        (proposals.DPS(scale=10.0), thresholding.Static(2.0)),
        (proposals.PiGDM(), None),
        (proposals.MomentMatched(), None),
    ],
)
def test_each_cure_that_is_named_keeps_particles_near_the_prior(proposal, threshold):
    smc = sampler(proposal, num_particles=32, num_steps=20, weighted=False)
    assert np.all(run(smc, prior=growing(threshold)).prior_widths < 5.0)
