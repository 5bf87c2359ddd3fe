"""Unknown parameters, beside the diffusion site: posteriors and evidence against quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import logsumexp

from smcdiff import SMC, InputError, Posterior, moves, priors, proposals
from smcdiff.diffusion.schedules import Cosine
from smcdiff.smc import segments
from tests.base.lapack import DECOMPOSES, unordered
from tests.sampler.models import MATRIX, PRIOR, Y, step_of


def noisy(y=None):
    x = numpyro.sample("x", PRIOR)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(MATRIX @ x, noise).to_event(1), obs=y)


def drawn(y=None):
    """Parameters whose law given all else is known in closed form."""
    x = numpyro.sample("x", PRIOR)
    variance = numpyro.sample("variance", dist.InverseGamma(2.0, 0.5))
    offset = numpyro.sample("offset", dist.Normal(0.0, 2.0))
    mean = MATRIX @ x + offset
    numpyro.sample("y", dist.Normal(mean, jnp.sqrt(variance)).to_event(1), obs=y)


def regression(y=None):
    """A gain and an offset, of the rows of an operator."""
    x = numpyro.sample("x", PRIOR)
    gain = numpyro.sample("gain", dist.Normal(1.0, 0.5))
    offset = numpyro.sample("offset", dist.Normal(0.0, 2.0))
    mean = gain * (MATRIX @ x) + offset
    numpyro.sample("y", dist.Normal(mean, 0.4).to_event(1), obs=y)


def marginal(gain, offset, noise):
    """Log p(y given the parameters): a mixture of two Gaussians."""
    matrix, terms = gain * np.asarray(MATRIX, float), []
    for weight, mean in zip((0.3, 0.7), np.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]]), strict=True):
        covariance = 0.5 * matrix @ matrix.T + noise**2 * np.eye(2)
        law = stats.multivariate_normal(matrix @ mean + offset, covariance)
        terms.append(np.log(weight) + law.logpdf(np.asarray(Y, float)))
    return logsumexp(terms)


def moments(log_joint, cell, *grids):
    """Log evidence, and means and standard deviations of the parameters, by the midpoint rule."""
    weights = np.exp(log_joint - logsumexp(log_joint))
    means = [np.sum(weights * grid) for grid in grids]
    spreads = [np.sqrt(np.sum(weights * (g - m) ** 2)) for g, m in zip(grids, means, strict=True)]
    return logsumexp(log_joint) + np.log(cell), means, spreads


def noise_truth():
    grid = (np.arange(400) + 0.5) / 100.0
    joint = stats.halfnorm.logpdf(grid) + [marginal(1.0, 0.0, noise) for noise in grid]
    return moments(joint, 0.01, grid)


def regression_truth():
    gain, offset = np.meshgrid(np.linspace(-1.0, 3.0, 41), np.linspace(-8.0, 8.0, 81))
    pairs = zip(gain.ravel(), offset.ravel(), strict=True)
    likelihood = np.array([marginal(g, o, 0.4) for g, o in pairs]).reshape(gain.shape)
    prior = stats.norm.logpdf(gain, 1.0, 0.5) + stats.norm.logpdf(offset, 0.0, 2.0)
    return moments(likelihood + prior, 0.1 * 0.2, gain, offset)


def agrees(posterior, truth, names, sd):
    """Evidence and moments, over 8 chains, within 4 standard errors; ``sd`` bounds the error."""
    log_evidence, means, spreads = truth
    ratios = np.exp(posterior.log_evidence - log_evidence)
    error = np.std(ratios) / np.sqrt(len(ratios) - 1)
    assert abs(np.mean(ratios) - 1.0) < 4.0 * error + 0.005 and error < sd
    weights = np.exp(posterior.log_weights)
    for name, mean, spread in zip(names, means, spreads, strict=True):
        values = posterior.samples[name]
        own = np.sum(weights * values, axis=1)
        error = np.std(own) / np.sqrt(len(own) - 1)
        assert abs(np.mean(own) - mean) < 4.0 * error + 0.005 * spread and error < sd * spread
        np.testing.assert_allclose(posterior.std()[name], spread, rtol=0.1)


def run(model, proposal=None, move=None, key=0, **options):
    options = {"num_particles": 400, "num_steps": 30, "num_chains": 8, **options}
    smc = SMC(model, proposal, progress_bar=False, move=move, **options)
    return smc.run(jax.random.key(key), y=Y)


def test_noise():
    posterior = run(noisy)
    assert "MomentMatched" in posterior.attrs["proposal"] and "HMC" in posterior.attrs["move"]
    agrees(posterior, noise_truth(), ["noise"], 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("move", [moves.MALA(), moves.RandomWalk()])
def test_noise_with_a_twist_of_the_mean(move):
    agrees(run(noisy, proposals.Twisted(), move), noise_truth(), ["noise"], 0.08)


@pytest.mark.slow
def test_noise_that_may_be_next_to_none():
    """More observations than entries of x, nearly exact: some noise levels are lost in float32."""

    def model(y=None):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(2), 1.0))
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(matrix @ x, noise).to_event(1), obs=y)

    matrix = jnp.array([[1.0, 0.4], [-0.5, 1.0], [0.3, 0.8]])
    y = matrix @ jnp.array([1.0, -1.0]) + 1e-3 * jnp.array([1.0, -0.5, 0.3])
    smc = SMC(model, num_particles=400, num_steps=30, progress_bar=False)
    posterior = smc.run(jax.random.key(0), y=y)
    assert np.all(np.isfinite(posterior.log_weights)) and posterior.mean()["noise"] < 0.5


@pytest.mark.slow
def test_a_variance_and_an_offset_that_are_drawn():
    """Both are conjugate, and the twist is widened entry by entry."""
    logs, offsets = np.linspace(-4.0, 4.0, 81), np.linspace(-8.0, 8.0, 81)
    log_variance, offset = np.meshgrid(logs, offsets)
    pairs = zip(np.exp(0.5 * log_variance).ravel(), offset.ravel(), strict=True)
    likelihood = np.array([marginal(1.0, o, noise) for noise, o in pairs])
    prior = stats.invgamma.logpdf(np.exp(log_variance), 2.0, scale=0.5) + log_variance
    joint = likelihood.reshape(prior.shape) + prior + stats.norm.logpdf(offset, 0.0, 2.0)
    _, means, spreads = moments(joint, 0.1 * 0.2, np.exp(log_variance), offset)
    truth = (moments(joint, 0.1 * 0.2)[0], means[1:], spreads[1:])
    posterior = run(drawn, proposals.Twisted())
    assert "['variance', 'offset'] drawn given all else" in posterior.attrs["move"]
    agrees(posterior, truth, ["offset"], 0.1)
    # A heavy tail, whose standard deviation few draws tell.
    own = np.sum(np.exp(posterior.log_weights) * posterior.samples["variance"], axis=1)
    assert abs(own.mean() - means[0]) < 4.0 * np.std(own) / np.sqrt(7) + 0.01


@pytest.mark.slow
def test_two_coefficients():
    agrees(run(regression), regression_truth(), ["gain", "offset"], 0.08)


COUNTS = jnp.array([3.0, 9.0, 1.0])


def counts(y=None):
    x = numpyro.sample("x", priors.Gaussian(jnp.zeros(1), 1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    slopes = jnp.array([0.0, 0.8, -0.8])
    numpyro.sample("y", dist.Poisson(rate * jnp.exp(slopes * x)).to_event(1), obs=y)


@pytest.mark.slow
def test_counts():
    """A likelihood that is not Gaussian: tempered, with peaks that follow the rate."""
    x, rate = np.meshgrid(np.linspace(-5.0, 5.0, 201), (np.arange(400) + 0.5) / 25.0)
    joint = stats.norm.logpdf(x) + stats.gamma.logpdf(rate, 2.0)
    for slope, count in zip((0.0, 0.8, -0.8), np.asarray(COUNTS), strict=True):
        joint = joint + stats.poisson.logpmf(count, rate * np.exp(slope * x))
    truth = moments(joint, 0.05 * 0.04, rate)
    smc = SMC(counts, num_particles=400, num_steps=30, num_chains=8, progress_bar=False)
    agrees(smc.run(jax.random.key(0), y=COUNTS), truth, ["rate"], 0.1)


PLACES = np.linspace(0.0, 1.0, 8)
READINGS = jnp.asarray(1.5 + PLACES + 0.3 * np.array([0.2, -1.1, 0.4, 2.5, -0.6, 0.1, 0.9, -0.4]))


def line(y=None):
    x = numpyro.sample("x", priors.Gaussian(jnp.zeros(2), 1.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    mean = x[0] + x[1] * jnp.asarray(PLACES)
    numpyro.sample("y", dist.StudentT(4.0, mean, scale).to_event(1), obs=y)


@pytest.mark.slow
def test_heavy_tails_and_more_readings_than_unknowns():
    """The noise once went to zero in every particle, with a log evidence of -1e15."""
    axes = np.linspace(-4.0, 4.0, 81), np.linspace(-4.0, 4.0, 81), (np.arange(60) + 0.5) / 30.0
    first, second, scale = np.meshgrid(*axes, indexing="ij")
    joint = stats.norm.logpdf(first) + stats.norm.logpdf(second) + stats.halfnorm.logpdf(scale)
    for place, value in zip(PLACES, np.asarray(READINGS, float), strict=True):
        joint = joint + stats.t.logpdf(value, 4.0, first + second * place, scale)
    truth = moments(joint, 0.1 * 0.1 / 30.0, scale)
    smc = SMC(line, num_particles=400, num_steps=30, num_chains=8, progress_bar=False)
    agrees(smc.run(jax.random.key(0), y=READINGS), truth, ["scale"], 0.1)


def small(key=0, **options):
    return run(noisy, key=key, num_particles=32, num_steps=6, num_chains=2, **options)


def test_result(tmp_path):
    posterior = small()
    assert list(posterior.samples) == ["x", "noise"]
    assert posterior.samples["noise"].shape == (2, 32) and np.all(posterior.samples["noise"] > 0)
    again = Posterior.load(posterior.save(tmp_path / "p.nc"))
    np.testing.assert_array_equal(again.samples["noise"], posterior.samples["noise"])
    assert set(posterior.to_arviz().posterior.data_vars) >= {"x", "noise"}


def test_same_key_same_bits():
    posterior = small()
    np.testing.assert_array_equal(small().samples["noise"], posterior.samples["noise"])
    assert np.any(small(key=1).samples["noise"] != posterior.samples["noise"])


@pytest.mark.slow
def test_batches():
    """Items as runs of their own, up to rounding.

    Without resampling, by which rounding may give a particle another parent.
    """
    options = {"num_particles": 32, "num_steps": 6, "progress_bar": False, "ess_threshold": 0.0}
    smc, key = SMC(noisy, **options), jax.random.key(0)
    items = smc.run_batch(key, {"y": jnp.stack([Y, Y + 1.0])})
    for item, found in enumerate(items):
        own = smc.run(jax.random.fold_in(key, item), y=Y + item)
        np.testing.assert_allclose(found.samples["noise"], own.samples["noise"], rtol=1e-3)


@pytest.mark.slow
def test_checkpoint(tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(step, num_steps, info):
        if step == 4:
            raise Stopped

    def sampler(progress):
        return SMC(noisy, num_particles=32, num_steps=6, progress_bar=progress)

    monkeypatch.setattr(segments, "SECONDS", 0.0)  # a segment per step
    whole = sampler(False).run(jax.random.key(0), y=Y)
    with pytest.raises(Stopped):
        sampler(stop).run(jax.random.key(0), y=Y, checkpoint=tmp_path / "run")
    rest = sampler(False).run(jax.random.key(0), y=Y, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(rest.samples["noise"], whole.samples["noise"])


def test_the_network_is_evaluated_once():
    """In operations: of a step with parameters and of one without, the network being most."""
    size = 256
    weights = jax.random.normal(jax.random.key(0), (size, size)) / size**0.5
    prior = priors.DiffusionPrior(
        lambda x, t: jnp.tanh(weights @ jnp.tanh(weights @ x)), Cosine(), (size,), data_variance=1.0
    )

    def model(unknown, y=None):
        x = numpyro.sample("x", prior)
        noise = numpyro.sample("noise", dist.HalfNormal(1.0)) if unknown else 0.5
        numpyro.sample("y", dist.Normal(x[:100], noise).to_event(1), obs=y)

    def operations(unknown):
        compiled = step_of(model, proposals.Twisted(), 4, unknown, y=jnp.ones(100))
        return compiled.cost_analysis()["flops"]

    # 4 products with the weights forward and back, of 2 size^2 each; the rest is of order size.
    assert operations(True) < 1.15 * operations(False)


def test_decompositions_wait_for_each_other():
    """Two at once, and XLA's threads may wait for each other for ever: see `base/_cpu.py`."""
    program = step_of(noisy, proposals.MomentMatched(), 4, y=Y).as_text()
    assert len(DECOMPOSES.findall(program)) > 3 and not unordered(program)
    # An offset and a variance, drawn given all else.
    program = step_of(drawn, proposals.Twisted(), 4, y=Y).as_text()
    assert DECOMPOSES.findall(program) and not unordered(program)


def test_proposals_that_hold_a_path():
    with pytest.raises(InputError, match=r"FPS: sites \['noise'\] are unknown.*use proposals"):
        run(noisy, proposals.FPS())


@pytest.mark.usefixtures("unchecked")
def test_move_is_checked():
    with pytest.raises(InputError, match=r"SMC: move is .*pass an object of smcdiff.*moves.HMC"):
        run(noisy, move="HMC")
