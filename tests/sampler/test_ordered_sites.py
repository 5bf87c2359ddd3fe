"""Diffusion sites whose priors depend on others, as a cascade's do, against exact posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy import stats

import smcdiff
from smcdiff import SMC, InputError, exact, operators, priors, proposals, schedules
from smcdiff.problem import read
from smcdiff.twists import Widened
from tests.base.lapack import DECOMPOSES, unordered
from tests.proposals.models import isotropic
from tests.sampler.models import step_of

LOW = priors.Gaussian(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.5]))
UP = jnp.concatenate([jnp.eye(2), -jnp.eye(2)])
Y, NOISE = jnp.array([0.8, 1.6, -0.2]), 0.3


def cascade(y=None):
    low = numpyro.sample("low", LOW)
    high = numpyro.sample("high", priors.Gaussian(UP @ low, 0.2))
    numpyro.deterministic("twice", 2.0 * high)
    numpyro.sample("y", dist.Normal(high[:3], NOISE).to_event(1), obs=y)


def joint_posterior():
    """Of (low, high), which are one Gaussian together."""
    low, up = np.diag(LOW.variance), np.asarray(UP)
    cross = low @ up.T
    covariance = np.block([[low, cross], [cross.T, up @ cross + 0.2 * np.eye(4)]])
    prior = priors.Gaussian(np.concatenate([LOW.mean, up @ np.asarray(LOW.mean)]), covariance)
    return exact.linear_gaussian_posterior(prior, np.eye(6)[2:5], Y, NOISE)


def run(model, proposal=None, key=0, **options):
    settings = {"num_particles": 256, "num_steps": 20, "num_chains": 4, "progress_bar": False}
    data = {name: options.pop(name) for name in ("y",) if name in options}
    return SMC(model, proposal, **settings | options).run(jax.random.key(key), **data)


def assert_right(posterior, truth, sites, narrower=0.0):
    """Whether a posterior has the moments and the evidence of an exact one.

    Args:
        posterior: of four chains, whose spread tells the error of a mean with three degrees of
            freedom, and may be small by chance; their 1,024 particles are worth 300 independent
            draws or more, of which two standard errors are 0.12 of a deviation.
        truth: (mean, variance, log evidence).
        sites: in the order of the mean.
        narrower: by how much the steps of the kernel make deviations too small.
    """
    mean, variance, log_evidence = truth
    start = 0
    for site in sites:
        values = posterior.samples[site].reshape(*posterior.log_weights.shape, -1)
        part = slice(start, start + values.shape[-1])
        start = part.stop
        weights = np.exp(posterior.log_weights)[..., None]
        spread = np.std(np.sum(weights * values, axis=1), axis=0, ddof=1)
        deviation = np.sqrt(np.asarray(variance)[part])
        error = np.abs(np.ravel(posterior.mean()[site]) - np.asarray(mean)[part])
        assert np.all(error < 3.0 * spread + 0.12 * deviation), (site, error, spread)
        # Of 1,024 particles about half are effective: a deviation is known to 3 %.
        np.testing.assert_allclose(
            np.ravel(posterior.std()[site]), deviation, rtol=0.1 + narrower, err_msg=site
        )
    error = posterior.pooled_log_evidence - float(log_evidence)
    assert abs(error) < 3.0 * posterior.pooled_log_evidence_se + 0.02 + narrower


@pytest.mark.parametrize(
    "proposal",
    [pytest.param(None, marks=pytest.mark.slow), proposals.Twisted()],
    ids=["chosen", "twisted"],
)
def test_a_cascade_of_gaussians(proposal):
    posterior = run(cascade, proposal, y=Y)
    assert list(posterior.samples) == ["low", "high", "twice"]
    np.testing.assert_array_equal(posterior.samples["twice"], 2.0 * posterior.samples["high"])
    truth = joint_posterior()
    assert_right(posterior, (truth.mean, truth.variance, truth.log_evidence), ("low", "high"))
    assert posterior.log_snr.shape == (42,) and np.isinf(posterior.log_snr[20])
    if proposal is None:
        assert posterior.attrs["proposal"].startswith("MomentMatched")


def test_evidence_is_unbiased_without_a_twist_at_the_end():
    """Of 64 filters: the mean of Z_hat / Z within 3 standard errors of 1."""
    posterior = run(cascade, proposals.Bootstrap(), num_chains=64, num_particles=128, y=Y)
    ratios = np.exp(posterior.log_evidence - float(joint_posterior().log_evidence))
    error = ratios.std(ddof=1) / 8.0
    assert abs(ratios.mean() - 1.0) < 3.0 * error < 0.3


def test_a_black_box_likelihood():
    """Nothing has a gradient here, so that the first stage is weighed and not steered."""

    def model(y=None):
        low = numpyro.sample("low", LOW)
        high = numpyro.sample("high", priors.Gaussian(low, 0.2))
        shape = jax.ShapeDtypeStruct((2,), high.dtype)
        seen = jax.pure_callback(np.asarray, shape, high, vmap_method="expand_dims")
        numpyro.sample("y", dist.Normal(seen, 0.5).to_event(1), obs=y)

    y = jnp.array([0.5, 0.5])
    posterior = run(model, y=y, num_particles=512)
    assert posterior.attrs["proposal"].startswith("Bootstrap")
    total = np.asarray(LOW.variance) + 0.2 + 0.25
    gain = np.asarray(LOW.variance) / total
    mean = np.asarray(LOW.mean) + gain * np.asarray(y - LOW.mean)
    evidence = stats.norm.logpdf(y, LOW.mean, np.sqrt(total)).sum()
    assert_right(posterior, (mean, np.asarray(LOW.variance) * (1 - gain), evidence), ("low",))


@pytest.mark.slow
def test_a_scale_that_is_sampled_first_and_folds():
    """Against quadrature: high has the variance of low's square, so that both signs fit."""

    def model(y=None):
        low = numpyro.sample("low", priors.Gaussian(jnp.array([0.5]), 1.0))
        high = numpyro.sample("high", priors.Gaussian(jnp.zeros(1), low**2 + 0.05))
        numpyro.sample("y", dist.Normal(high, 0.2).to_event(1), obs=y)

    low = np.linspace(-6.0, 6.0, 4001)
    terms = stats.norm.logpdf(low, 0.5) + stats.norm.logpdf(1.5, 0.0, np.sqrt(low**2 + 0.09))
    density = np.exp(terms)
    evidence = np.trapezoid(density, low)
    weight = np.trapezoid(density * (low > 0), low) / evidence
    posterior = run(model, y=jnp.array([1.5]), num_particles=1024)
    positive = np.sum(np.exp(posterior.log_weights) * (posterior.samples["low"][..., 0] > 0), 1)
    # Four chains: 3 of their standard deviations cover the error of their mean amply.
    assert abs(positive.mean() - weight) < 3.0 * positive.std(ddof=1) + 0.01
    error = posterior.pooled_log_evidence - np.log(evidence)
    assert abs(error) < 3.0 * posterior.pooled_log_evidence_se + 0.02


@pytest.mark.slow
def test_three_stages_and_an_independent_site():
    def model(y=None):
        a = numpyro.sample("a", priors.Gaussian(jnp.array([0.0]), 1.0))
        b = numpyro.sample("b", priors.Gaussian(a + 1.0, 0.5))
        free = numpyro.sample("free", priors.Gaussian(jnp.array([1.0]), 0.3))
        c = numpyro.sample("c", priors.Gaussian(a - b, 0.4))
        numpyro.sample("y", dist.Normal(c + free, 0.5).to_event(1), obs=y)

    # c = -1 - e_b + e_c, in which a cancels: it keeps its prior, and y = e_c - e_b + free - 1.
    y, variance = 0.8, 0.5 + 0.4 + 0.3 + 0.25
    posterior = run(model, y=jnp.array([y]))
    # Of a, b, c and free: the covariance with y, by which each moves.
    with_y = np.array([0.0, -0.5, 0.9, 0.3])
    mean = np.array([0.0, 1.0, -1.0, 1.0]) + with_y / variance * y
    own = np.array([1.0, 1.5, 0.9, 0.3]) - with_y**2 / variance
    evidence = stats.norm.logpdf(y, 0.0, np.sqrt(variance))
    assert_right(posterior, (mean, own, evidence), ("a", "b", "c", "free"))
    assert [len(stage.layout.places) for stage in read(model, (), {"y": jnp.zeros(1)}).before] == [
        2, 1,
    ]  # fmt: skip


class Upsampler(smcdiff.Module):
    """The denoiser of N(UP low, v I), which takes the low resolution as its condition."""

    low: jax.Array

    def given(self, condition, strength=None):
        return Upsampler(condition)

    def __call__(self, x, t):
        level = schedules.Cosine().level(t)
        mean = UP @ self.low
        precision = 5.0 + level.alpha**2 / level.sigma**2
        return mean + level.alpha / level.sigma**2 * (x - level.alpha * mean) / precision


def test_a_learned_cascade():
    """Networks with their steps: 100 of them make a deviation some percent too small."""
    base, truth = isotropic(jnp.array([0.0, 1.0]), 0.5)
    upsampler = priors.DiffusionPrior(Upsampler(jnp.zeros(2)), schedules.Cosine(), (4,))

    def model(y=None):
        low = numpyro.sample("low", base)
        high = numpyro.sample("high", upsampler.given(low))
        numpyro.sample("y", dist.Normal(high[:3], NOISE).to_event(1), obs=y)

    low, up = 0.5 * np.eye(2), np.asarray(UP)
    cross = low @ up.T
    covariance = np.block([[low, cross], [cross.T, up @ cross + 0.2 * np.eye(4)]])
    prior = priors.Gaussian(np.concatenate([truth.mean, up @ np.asarray(truth.mean)]), covariance)
    expected = exact.linear_gaussian_posterior(prior, np.eye(6)[2:5], Y, NOISE)
    posterior = run(model, y=Y, num_steps=100)
    moments = (expected.mean, expected.variance, expected.log_evidence)
    assert_right(posterior, moments, ("low", "high"), narrower=0.05)


@pytest.mark.slow
def test_a_batch_is_its_runs():
    smc = SMC(
        cascade, proposals.Twisted(twist=Widened(2)), num_particles=16, num_steps=5,
        ess_threshold=0.0, progress_bar=False,
    )  # fmt: skip
    both = smc.run_batch(jax.random.key(1), {"y": jnp.stack([Y, -Y])})
    alone = smc.run(jax.random.fold_in(jax.random.key(1), 1), y=-Y)
    for site in ("low", "high"):
        np.testing.assert_allclose(both[1].samples[site], alone.samples[site], atol=1e-4)
    np.testing.assert_allclose(both[1].log_evidence, alone.log_evidence, atol=1e-3)


def test_what_is_read_of_a_cascade():
    blur = operators.Dense(jnp.array([[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.5, 0.0]]))

    def model(offset, y=None):
        low = numpyro.sample("low", LOW)
        high = numpyro.sample("high", priors.Gaussian(UP @ low, 0.2))
        numpyro.sample("y", dist.Normal(blur(high) + offset * low, NOISE).to_event(1), obs=y)

    problem = read(model, (0.5,), {"y": jnp.ones(2)})
    assert problem.layout.names == ("high",) and problem.held.layout.names == ("low",)
    assert problem.is_linear and problem.recognised is not None
    (first,) = problem.before
    assert first.layout.names == ("low",) and first.has_later and not first.is_linear
    guess, scales = first.guess_later(jnp.array([1.0, 2.0]))
    # What noise alone tells: the level at which sampling starts leaves a little of x_0.
    np.testing.assert_allclose(guess["high"], UP @ jnp.array([1.0, 2.0]), atol=0.2)
    np.testing.assert_allclose(scales["high"], np.sqrt(0.2), rtol=0.1)
    given = problem.holding(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(given.prior.mean, [1.0, 2.0, -1.0, -2.0])
    moved = given.observe_gaussian(jnp.zeros(4)).misfit
    np.testing.assert_allclose(moved, 1.0 - 0.5 * jnp.array([1.0, 2.0]))


def test_decompositions_wait_for_each_other():
    """Two at once, and XLA's threads may wait for each other for ever: see `base/_cpu.py`."""
    program = step_of(cascade, proposals.MomentMatched(), 4, y=Y).as_text()
    assert DECOMPOSES.findall(program) and not unordered(program)


@pytest.mark.parametrize("proposal", [proposals.FPS(), proposals.TwistedPath()], ids=str)
def test_proposals_that_hold_a_path(proposal):
    with pytest.raises(InputError, match=r"'high' depends on \['low'\].*use proposals"):
        run(cascade, proposal, y=Y)


def test_particle_gibbs_refuses():
    gibbs = smcdiff.ParticleGibbs(
        cascade, num_particles=4, num_steps=4, num_warmup=0, num_samples=4
    )
    with pytest.raises(InputError, match="ParticleGibbs: the diffusion prior of site 'high'"):
        gibbs.run(jax.random.key(0), y=Y)


def test_what_does_not_go_with_dependent_sites():
    def noisy(y=None):
        low = numpyro.sample("low", LOW)
        high = numpyro.sample("high", priors.Gaussian(low, 0.2))
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(high, noise).to_event(1), obs=y)

    with pytest.raises(InputError, match=r"\['noise'\] are unknown.*\['high'\] depend"):
        run(noisy, y=jnp.ones(2))
    known = handlers.substitute(noisy, {"noise": 0.5})
    assert read(known, (), {"y": jnp.ones(2)}).parameters is None

    def exactly(y=None):
        low = numpyro.sample("low", LOW)
        high = numpyro.sample("high", priors.Gaussian(low, 0.2))
        numpyro.sample("y", dist.Delta(high).to_event(1), obs=y)

    with pytest.raises(InputError, match="'y' is observed without noise"):
        run(exactly, y=jnp.ones(2))

    def plate(y=None):
        low = numpyro.sample("low", LOW)
        with numpyro.plate("n", 2):
            high = numpyro.sample("high", priors.Gaussian(low, 0.2))
        numpyro.sample("y", dist.Normal(high, 1.0).to_event(2), obs=y)

    with pytest.raises(InputError, match="'high': its diffusion prior depends.* plate"):
        run(plate, y=jnp.ones((2, 2)))
