"""Models with several diffusion sites, or plates of them, against exact posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import smcdiff
from smcdiff import SMC, exact, priors, proposals, schedules
from smcdiff.priors.product import product
from tests.proposals.models import isotropic
from tests.sampler.models import PRIOR

SMOOTH = priors.Gaussian(jnp.array([0.5, -0.5, 0.0]), jnp.array([0.3, 0.6, 0.2]))
Y, NOISE = jnp.array([0.4, 1.2, -0.3]), 0.3


def separation(y=None):
    bright = numpyro.sample("bright", PRIOR)
    faint = numpyro.sample("faint", SMOOTH)
    numpyro.deterministic("total", bright + faint)
    numpyro.sample("y", dist.Normal(bright + faint, NOISE).to_event(1), obs=y)


def run(model, key=0, **options):
    settings = {"num_particles": 256, "num_steps": 20, "num_chains": 4, "progress_bar": False}
    data = {name: options.pop(name) for name in ("y",) if name in options}
    return SMC(model, options.pop("proposal", None), **settings | options).run(
        jax.random.key(key), **data
    )


def agrees(posterior, truth, layout):
    """Whether means, deviations and the evidence are those of the exact posterior.

    The spread of four chains tells the error of a mean with three degrees of freedom, and may be
    small by chance; their 1,024 particles are worth 300 independent draws or more, of which two
    standard errors are 0.12 of a deviation.
    """
    for site, part in layout.items():
        mean = np.ravel(truth.mean)[part].reshape(posterior.mean()[site].shape)
        deviation = np.sqrt(np.ravel(truth.variance)[part]).reshape(mean.shape)
        weights = np.exp(posterior.log_weights)[..., None]
        chains = posterior.samples[site].reshape(*posterior.log_weights.shape, -1)
        spread = np.std(np.sum(weights * chains, 1), axis=0, ddof=1).reshape(mean.shape)
        error = np.abs(posterior.mean()[site] - mean)
        assert np.all(error < 3.0 * spread + 0.12 * deviation), (site, error, spread)
        # 1,024 particles, of which about two thirds are effective, know it to 3 %; 100 DDIM steps
        # make the learned priors 5 % too narrow.
        np.testing.assert_allclose(posterior.std()[site], deviation, rtol=0.1)
    error = posterior.pooled_log_evidence - float(truth.log_evidence)
    assert abs(error) < 3.0 * posterior.pooled_log_evidence_se + 0.02


def test_two_sites_are_separated():
    posterior = run(separation, y=Y)
    assert list(posterior.samples) == ["bright", "faint", "total"]
    matrix = jnp.concatenate([jnp.eye(3), jnp.eye(3)], axis=1)
    truth = exact.linear_gaussian_posterior(product([PRIOR, SMOOTH]), matrix, Y, NOISE)
    agrees(posterior, truth, {"bright": slice(0, 3), "faint": slice(3, 6)})
    total = posterior.samples["bright"] + posterior.samples["faint"]
    np.testing.assert_allclose(posterior.samples["total"], total, rtol=1e-5)


def test_a_batch_is_its_runs():
    ys = jnp.stack([Y, -Y])
    smc = SMC(separation, num_particles=16, num_steps=5, ess_threshold=0.0, progress_bar=False)
    both = smc.run_batch(jax.random.key(1), {"y": ys})
    alone = smc.run(jax.random.fold_in(jax.random.key(1), 1), y=ys[1])
    np.testing.assert_allclose(both[1].samples["faint"], alone.samples["faint"], atol=1e-4)


def test_sites_of_one_prior_lie_side_by_side_and_keep_their_names():
    def model(y=None):
        a = numpyro.sample("a", SMOOTH)
        b = numpyro.sample("b", PRIOR)
        c = numpyro.sample("c", SMOOTH)
        numpyro.sample("y", dist.Normal(a + b - 2.0 * c, NOISE).to_event(1), obs=y)

    posterior = run(model, y=Y)
    assert list(posterior.samples) == ["a", "b", "c"]
    matrix = jnp.concatenate([jnp.eye(3), -2.0 * jnp.eye(3), jnp.eye(3)], axis=1)
    truth = exact.linear_gaussian_posterior(product([SMOOTH, PRIOR], [2, 1]), matrix, Y, NOISE)
    agrees(posterior, truth, {"a": slice(0, 3), "c": slice(3, 6), "b": slice(6, 9)})


@pytest.mark.parametrize("nested", [False, True])
def test_a_plate_of_independent_events(nested):
    ys = jnp.stack([Y, -Y])

    def model(y=None):
        with numpyro.plate("images", 2):
            x = numpyro.sample("x", PRIOR)
            numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=y)

    def expanded(y=None):
        x = numpyro.sample("x", PRIOR.expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x, NOISE).to_event(2), obs=y)

    posterior = run(expanded if nested else model, y=ys)
    assert posterior.samples["x"].shape[2:] == (2, 3)
    truth = exact.linear_gaussian_posterior(product([PRIOR], [2]), jnp.eye(6), ys, NOISE)
    agrees(posterior, truth, {"x": slice(0, 6)})


@pytest.mark.slow
def test_a_plate_that_shares_an_unknown_noise():
    """Against quadrature over the noise, of exact posteriors given it."""
    ys, grid = jnp.stack([Y, -Y, 0.5 * Y]), np.geomspace(0.02, 3.0, 200)

    def model(y=None):
        noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.5))
        with numpyro.plate("images", 3):
            x = numpyro.sample("x", SMOOTH)
            numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)

    variance = np.asarray(SMOOTH.variance)[None] + grid[:, None] ** 2
    centred = np.asarray(ys - SMOOTH.mean[None])[:, None] ** 2
    terms = -0.5 * (centred / variance[None] + np.log(2 * np.pi * variance)[None])
    log_joint = terms.sum((0, 2)) + np.asarray(dist.LogNormal(-1.0, 0.5).log_prob(grid))
    density = np.exp(log_joint - log_joint.max())
    evidence = np.log(np.trapezoid(density, grid)) + log_joint.max()
    mean = np.trapezoid(density * grid, grid) / np.trapezoid(density, grid)
    posterior = run(model, y=ys, num_particles=512)
    chains = np.sum(np.exp(posterior.log_weights) * posterior.samples["noise"], axis=1)
    # A mean of four chains, as in `agrees`; and an evidence that is known to its standard error.
    assert abs(posterior.mean()["noise"] - mean) < 3.0 * np.std(chains, ddof=1) + 0.005
    error = posterior.pooled_log_evidence - evidence
    assert abs(error) < 3.0 * posterior.pooled_log_evidence_se + 0.02


def test_learned_priors_of_two_schedules():
    """Kernels with their steps: many, so that what they miss of the prior is small."""
    first, truth = isotropic(jnp.array([1.0, -1.0]), 0.5)
    exploding = schedules.VarianceExploding()
    network = priors.Gaussian(jnp.array([0.0, 0.5]), 0.2, schedule=exploding)
    second = priors.DiffusionPrior(network.denoise, exploding, (2,), data_variance=0.2)
    y = jnp.array([1.2, 0.3])

    def model(y=None):
        total = numpyro.sample("a", first) + numpyro.sample("b", second)
        numpyro.sample("y", dist.Normal(total, 0.5).to_event(1), obs=y)

    posterior = run(model, y=y, num_steps=100, proposal=proposals.Twisted())
    matrix = jnp.concatenate([jnp.eye(2), jnp.eye(2)], axis=1)
    expected = exact.linear_gaussian_posterior(product([truth, network]), matrix, y, 0.5)
    agrees(posterior, expected, {"a": slice(0, 2), "b": slice(2, 4)})


@pytest.mark.slow
def test_calibration_of_two_sites():
    smc = SMC(separation, num_particles=64, num_steps=8, progress_bar=False)
    record = smcdiff.calibrate(
        separation, smc, key=jax.random.key(2), num_simulations=60, num_draws=19
    )
    assert {"bright", "faint"} <= {name.split("[")[0] for name in record.ranks}
