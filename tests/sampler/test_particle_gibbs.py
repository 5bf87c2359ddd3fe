"""Particle Gibbs: from any start to the posterior of the discretised prior, with few particles."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import logsumexp

from smcdiff import (
    InputError,
    ParticleGibbs,
    SamplingError,
    exact,
    kernels,
    priors,
    proposals,
    schedules,
)
from smcdiff.operators import Dense
from tests.sampler.models import MATRIX, NOISE, PRIOR, Y
from tests.sampler.test_parameters import noise_truth, noisy

FAR = jnp.array([[10.0, -10.0, 5.0], [-8.0, 4.0, 0.0], [0.0, 0.0, 0.0], [3.0, 9.0, -9.0]])


def mixture(y=None, noise=NOISE):
    x = numpyro.sample("x", PRIOR)
    numpyro.deterministic("norm", jnp.sum(x**2))
    numpyro.sample("y", dist.Normal(MATRIX @ x, noise).to_event(1), obs=y)


def run(model, proposal=None, key=0, init=None, y=Y, **options):
    options = {
        "num_particles": 8, "num_steps": 8, "num_warmup": 100, "num_samples": 1_000, **options,
    }  # fmt: skip
    sampler = ParticleGibbs(model, proposal, progress_bar=False, **options)
    return sampler.run(jax.random.key(key), y=y, init=init)


def close(values, truth):
    """The mean of draws (C, S) lies within 3 Monte-Carlo errors of the truth, which are small."""
    from smcdiff.results._arviz import convergence

    told = convergence(np.asarray(values, float))
    assert told["r_hat"] < 1.05
    assert abs(np.mean(values) - truth) < 3.0 * told["mcse"] + 1e-3
    assert told["mcse"] < 0.1 * np.std(values)


@pytest.mark.parametrize(
    "proposal",
    [pytest.param(proposals.Twisted(), marks=pytest.mark.slow), proposals.MomentMatched()],
    ids=lambda p: type(p).__name__,
)
def test_mixture_from_far_away(proposal):
    """Modes of weights 0.065 and 0.935, from four starts of which none is near."""
    draws = run(mixture, proposal, init=FAR)
    truth = exact.linear_gaussian_posterior(PRIOR, Dense(MATRIX), Y, NOISE)
    weights = np.exp(truth.log_weights - logsumexp(truth.log_weights))
    assert 0.05 < weights[0] < 0.1
    x = draws.samples["x"].astype(float)
    # How probable each draw makes the first mode: its mean is the weight of the mode.
    means, noise = np.asarray(PRIOR.means, float), 0.5
    logs = np.log([0.3, 0.7]) - 0.5 * np.sum((x[..., None, :] - means) ** 2, axis=-1) / noise
    close(np.exp(logs[..., 0] - logsumexp(logs, axis=-1)), weights[0])
    for entry in range(3):
        close(x[..., entry], float(truth.mean[entry]))
    np.testing.assert_allclose(draws.samples["norm"], (x**2).sum(-1), rtol=1e-4)


def test_noised_anew():
    """Where the kernel is ideal, the path may be drawn anew from x_0 before each sweep."""
    draws = run(mixture, proposals.Twisted(), init=FAR, renoise=True, num_samples=2_000)
    truth = exact.linear_gaussian_posterior(PRIOR, Dense(MATRIX), Y, NOISE)
    for entry in range(3):
        close(draws.samples["x"][..., entry], float(truth.mean[entry]))


@pytest.mark.slow
def test_noised_anew_on_its_own_path():
    """The same of `TwistedPath`: the exact kernel of a Gaussian of one variance is isotropic."""
    law = priors.Gaussian(jnp.zeros(2), 1.0)

    def model(y=None):
        x = numpyro.sample("x", law)
        numpyro.sample("y", dist.Normal(x[:1] + x[1:], 0.5).to_event(1), obs=y)

    draws = run(
        model, proposals.TwistedPath(), y=jnp.array([1.5]), renoise=True, num_samples=4_000,
        num_particles=4,
    )  # fmt: skip
    x = draws.samples["x"].astype(float)
    # Of the sum, with variance 2 and noise 0.25; the difference is not seen.
    close(x.sum(-1), 1.5 * 2.0 / 2.25)
    close((x.sum(-1) - 1.5 * 2.0 / 2.25) ** 2, 2.0 * 0.25 / 2.25)
    close((x[..., 0] - x[..., 1]) ** 2, 2.0)


@pytest.mark.slow
def test_first_path_by_a_filter():
    """Without a start the first sweep is a particle filter; two particles are enough."""
    draws = run(mixture, num_particles=2, num_samples=2_000)
    truth = exact.linear_gaussian_posterior(PRIOR, Dense(MATRIX), Y, NOISE)
    for entry in range(3):
        close(draws.samples["x"][..., entry], float(truth.mean[entry]))


@pytest.mark.parametrize(
    ("proposal", "kernel"),
    [
        (proposals.Twisted(), kernels.DDIM()),
        pytest.param(proposals.TwistedPath(), kernels.DDIM(), marks=pytest.mark.slow),
        (proposals.TwistedPath(), kernels.EulerMaruyama()),
        pytest.param(proposals.Bootstrap(), kernels.DDIM(), marks=pytest.mark.slow),
        pytest.param(proposals.Bootstrap(), kernels.EulerMaruyama(), marks=pytest.mark.slow),
        pytest.param(proposals.Twisted(), kernels.EulerMaruyama(), marks=pytest.mark.slow),
        pytest.param(proposals.FPS(), kernels.DDIM(), marks=pytest.mark.slow),
    ],
    ids=lambda part: type(part).__name__,
)
def test_the_kernel_with_its_steps_is_the_prior(proposal, kernel):
    """A Gaussian prior that three steps make too narrow or too wide; DDPM's ends in a Dirac."""
    law, noise, y = priors.Gaussian(jnp.zeros(2), 1.0), 0.5, jnp.array([1.5])

    def model(y=None):
        x = numpyro.sample("x", law)
        numpyro.sample("y", dist.Normal(x[:1], noise).to_event(1), obs=y)

    grid = schedules.UniformLogSNR()
    draws = run(
        model, proposal, y=y, kernel=kernel, grid=grid, num_steps=3, num_samples=3_000,
        num_particles=6, num_warmup=200,
    )  # fmt: skip
    levels = grid(law.schedule, 3)
    variance, one = float(law.terminal().mean_variance), jnp.ones(2)
    for index in range(3):
        t, s = (jax.tree.map(lambda a, i=i: a[i], levels) for i in (index, index + 1))
        step = kernel(law, one, law.denoise(one, t.time), t, s)  # linear: its mean at 1 is its gain
        variance = float(step.mean[0]) ** 2 * variance + float(step.mean_variance)
    assert abs(variance - 1.0) > 0.2
    gain = variance / (variance + noise**2)
    x = draws.samples["x"].astype(float)
    close(x[..., 0], gain * 1.5)
    close((x[..., 0] - gain * 1.5) ** 2, variance * (1.0 - gain))
    close(x[..., 1] ** 2, variance)


@pytest.mark.slow
def test_folded():
    """y = |x| + noise under a lopsided prior: two modes that no linear observation has."""
    law = priors.GaussianMixture(jnp.array([0.2, 0.8]), jnp.array([[-1.0], [1.5]]), 0.3)

    def model(y=None):
        x = numpyro.sample("x", law)
        numpyro.sample("y", dist.Normal(jnp.abs(x), 0.2).to_event(1), obs=y)

    draws = run(model, y=jnp.array([1.2]), init=jnp.array([30.0]), num_samples=2_000)
    assert "Twisted" in draws.attrs["proposal"]
    grid = np.linspace(-6.0, 6.0, 20_001)
    density = sum(
        w * stats.norm.pdf(grid, m, 0.3**0.5) for w, m in ((0.2, -1.0), (0.8, 1.5))
    ) * stats.norm.pdf(1.2, np.abs(grid), 0.2)
    density /= density.sum()
    x = draws.samples["x"][..., 0].astype(float)
    close(x < 0.0, density[grid < 0.0].sum())
    close(x, density @ grid)
    close(x**2, density @ grid**2)


@pytest.mark.slow
def test_unknown_noise():
    """Against quadrature."""
    draws = run(noisy, num_warmup=200)
    assert "HMC" in draws.attrs["move"]
    _, (mean,), (spread,) = noise_truth()
    noise = draws.samples["noise"].astype(float)
    close(noise, mean)
    close((noise - mean) ** 2, spread**2)
    # The steps were set in the warmup: HMC's target is 0.7.
    assert 0.4 < draws.acceptance.mean() < 0.95


def test_record():
    """What ArviZ, NumPyro's users and the terminal are given."""
    import arviz as az

    draws = run(mixture, num_samples=50, num_warmup=0)
    assert draws.samples["x"].shape == (4, 50, 3) and draws.samples["norm"].shape == (4, 50)
    assert draws.get_samples()["x"].shape == (200, 3)
    assert draws.get_samples(group_by_chain=True)["norm"].shape == (4, 50)
    assert draws.renewed.shape == draws.ess.shape == (4, 50, 9)
    assert np.all((draws.ess >= 0.999) & (draws.ess <= 8.001)) and 0.0 < draws.renewed.mean() < 1.0
    # A state is new where the sweep says so, and nowhere else.
    moved = np.any(np.diff(draws.samples["x"], axis=1) != 0.0, axis=-1)
    np.testing.assert_array_equal(moved, draws.renewed[:, 1:, -1])
    want = stats.norm.logpdf(Y, draws.samples["x"] @ np.asarray(MATRIX).T, NOISE)
    np.testing.assert_allclose(draws.log_likelihood, want.sum(-1), rtol=1e-3, atol=1e-3)
    data = draws.to_arviz()
    assert set(data.groups()) == {"posterior", "sample_stats", "log_likelihood", "observed_data"}
    table, mine = az.summary(data, round_to="none"), draws.summary()
    np.testing.assert_allclose(table["r_hat"].values[:3], mine["x"]["r_hat"], rtol=1e-3)
    np.testing.assert_allclose(table["ess_bulk"].values[:3], mine["x"]["ess_bulk"], rtol=0.02)
    np.testing.assert_allclose(draws.mean()["x"], mine["x"]["mean"])
    np.testing.assert_allclose(draws.std()["x"], mine["x"]["std"])
    draws.print_summary()
    assert "4 chains x 50 sweeps" in repr(draws)
    again = run(mixture, num_samples=50, num_warmup=0)
    np.testing.assert_array_equal(again.samples["x"], draws.samples["x"])


def test_progress_and_batches_change_no_draw():
    seen = []
    options = dict(num_particles=8, num_steps=8, num_warmup=3, num_samples=20)
    plain = ParticleGibbs(mixture, progress_bar=False, **options)
    watched = ParticleGibbs(
        mixture, progress_bar=lambda *told: seen.append(told), batch_size=8, **options
    )
    a, b = (sampler.run(jax.random.key(0), y=Y) for sampler in (plain, watched))
    np.testing.assert_allclose(a.samples["x"], b.samples["x"], rtol=1e-3, atol=1e-4)
    assert seen[-1][:2] == (23, 23) and seen[-1][2]["ess"].shape == (4,)


@pytest.mark.parametrize("model", [mixture, pytest.param(noisy, marks=pytest.mark.slow)])
def test_chains_go_on(model):
    """From the state of other draws: what the steps were set to is kept, too."""
    first = run(model, proposals.Bootstrap(), num_warmup=20, num_samples=5)
    more = run(model, proposals.Bootstrap(), 1, first, num_warmup=0, num_samples=1)
    # Of the first path what is not renewed is there again.
    kept = ~more.renewed[:, 0, -1]
    assert np.any(kept)
    np.testing.assert_array_equal(more.samples["x"][kept, 0], first.samples["x"][kept, -1])
    for a, b in zip(*map(jax.tree.leaves, (first.state.learned, more.state.learned)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="other chains, steps"):
        run(model, init=first, num_steps=5)


def refused(*wanted, model=mixture, proposal=None, init=None, y=Y, **options):
    with pytest.raises(InputError) as error:
        run(model, proposal, init=init, y=y, **options)
    for words in wanted:
        assert words in str(error.value)


def test_refusals():
    refused("num_particles", "at least 2", num_particles=1)
    refused("num_samples", num_samples=0)
    refused("num_warmup", num_warmup=-1)
    refused("ess_threshold", ess_threshold=lambda log_snr: log_snr)
    refused("renoise", renoise=1)
    refused("init has shape", "(4, 3)", init=jnp.zeros(2))
    refused("not finite", init=jnp.full(3, jnp.nan))
    for proposal in (proposals.MCGDiff(), proposals.DDRM()):
        refused(type(proposal).__name__, "Twisted()", proposal=proposal)
    refused("isotropic", "AnalyticDPM()", proposal=proposals.TwistedPath())
    refused("eta = 0", kernel=kernels.DDIM(eta=0.0))

    def noise_free(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Delta(MATRIX @ x).to_event(1), obs=y)

    refused("without noise", model=noise_free, proposal=proposals.MomentMatched())


def test_what_cannot_go_on_says_why():
    def impossible(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.factor("never", jnp.where(x[0] > 1e6, 0.0, -jnp.inf))

    for init in (None, jnp.zeros(3)):
        with pytest.raises(SamplingError, match="in sweep 0 of chain 0, the first"):
            run(impossible, proposals.Bootstrap(), init=init, num_samples=5)

    def undefined(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.factor("odd", jnp.where(x[0] < 0.0, jnp.nan, 0.0))

    with pytest.raises(SamplingError, match="log likelihood of site 'odd' is NaN at"):
        run(undefined, proposals.Bootstrap(), num_samples=5)


@pytest.mark.slow
def test_several_sites():
    """A sum of two Gaussians: each is drawn by its own name."""

    def model(y=None):
        a = numpyro.sample("a", priors.Gaussian(jnp.zeros(1), 1.0))
        b = numpyro.sample("b", priors.Gaussian(jnp.ones(1), 2.0))
        numpyro.sample("y", dist.Normal(a + b, 0.5).to_event(1), obs=y)

    draws = run(model, y=jnp.array([2.0]), init=jnp.array([9.0, -9.0]))
    assert list(draws.samples) == ["a", "b"] and draws.samples["b"].shape == (4, 1_000, 1)
    close(draws.samples["a"][..., 0], 1.0 / 3.25)
    close(draws.samples["b"][..., 0], 1.0 + 2.0 / 3.25)
