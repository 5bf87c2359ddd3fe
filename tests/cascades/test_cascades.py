"""Cascades whose stages are exact: covariances, errors, mixtures, and posteriors in closed form."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import smcdiff
from smcdiff import SMC, Cascade, InputError, cascades, exact, priors, schedules, thresholding
from smcdiff.cascades.augmentation import scales

SIZE, LOW = 4, 2
DOWN = np.kron(np.eye(LOW), np.full((1, 2), 0.5))  # means over pairs
APART = np.abs(np.arange(SIZE)[:, None] - np.arange(SIZE)[None])
COVARIANCE = 0.8 * np.exp(-0.5 * (APART / 1.5) ** 2) + 0.1 * np.eye(SIZE)
HIGH = priors.Gaussian(jnp.zeros(SIZE), COVARIANCE)
LOW_COVARIANCE = DOWN @ COVARIANCE @ DOWN.T
MIXTURE = priors.GaussianMixture(
    [0.6, 0.4], [[-1.0, -1.0, 0.5, 1.0], [1.0, 0.5, -0.5, 0.0]],
    np.stack([0.3 * COVARIANCE, 0.2 * np.eye(SIZE)]),
)  # fmt: skip
KINDS = [cascades.Gaussian, cascades.Truncated]


def low_of(mixture):
    """The exact law of the low resolution."""
    covariances = DOWN @ np.asarray(mixture.component_covariances()) @ DOWN.T
    return priors.GaussianMixture(np.exp(mixture.log_weights), mixture.means @ DOWN.T, covariances)


def of_gaussians(kind, log_snr, scale=1.0):
    """A cascade whose base has ``scale`` times the right covariance."""
    base = priors.Gaussian(jnp.zeros(LOW), scale * LOW_COVARIANCE)
    upsampler = cascades.AnalyticUpsampler(HIGH, DOWN, log_snr)
    return Cascade(base, (upsampler,), kind(log_snr))


def assert_covariance(draws, covariance):
    """Each entry within 4 standard errors (Wishart): of 10 entries one in 1,600 is beyond."""
    covariance = np.asarray(covariance)
    found = np.cov(np.asarray(draws).T)
    variances = np.diag(covariance)
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / len(draws))
    assert np.all(np.abs(found - covariance) < 4.0 * error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("log_snr", [-2.0, 1.0, 5.0])
def test_exact_stages_reproduce_the_covariance(kind, log_snr):
    """At every level: what the noise hides of the base, the upsampler draws itself."""
    draws = of_gaussians(kind, log_snr).sample(jax.random.key(0), (20_000,))
    assert draws.shape == (20_000, SIZE)
    assert_covariance(draws, COVARIANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("log_snr", [-2.0, 1.0, 5.0])
def test_the_error_of_a_base_is_the_closed_form(kind, log_snr):
    """With x = G c + noise, and c of covariance a^2 B + s^2 I: a^2 G (B' - B) G' too much."""
    alpha2, sigma2 = (float(scale) ** 2 for scale in scales(log_snr))
    cross = COVARIANCE @ DOWN.T
    gain = np.linalg.solve(alpha2 * LOW_COVARIANCE + sigma2 * np.eye(LOW), cross.T).T
    error = alpha2**2 * gain @ (0.2 * LOW_COVARIANCE) @ gain.T
    draws = of_gaussians(kind, log_snr, 1.2).sample(jax.random.key(1), (20_000,))
    assert_covariance(draws, COVARIANCE + error)
    # Little noise lets through what is wrong, much noise hides it.
    share = np.trace(error) / (0.2 * np.trace(LOW_COVARIANCE) * SIZE / LOW)
    assert (share < 0.05) == (log_snr < 0.0) and (share > 0.8) == (log_snr > 2.0)


def energy_distance(first, second):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely and Rizzo 2013)."""

    def mean_distance(a, b):
        return np.mean(np.linalg.norm(a[:, None] - b[None], axis=-1))

    between = mean_distance(first, second)
    return 2.0 * between - mean_distance(first, first) - mean_distance(second, second)


@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
def test_a_cascade_of_mixtures_equals_direct_draws(kind):
    """Below the 99 % point of the distance of draws that are exchanged at random."""
    upsampler = cascades.AnalyticUpsampler(MIXTURE, DOWN, 1.0)
    cascade = Cascade(low_of(MIXTURE), (upsampler,), kind(1.0))
    both = np.concatenate([
        cascade.sample(jax.random.key(0), (400,)), MIXTURE.sample(jax.random.key(1), (400,)),
    ])  # fmt: skip
    distance, generator = energy_distance(both[:400], both[400:]), np.random.default_rng(0)
    null = []
    for _ in range(200):
        mixed = generator.permutation(both)
        null.append(energy_distance(mixed[:400], mixed[400:]))
    assert distance < np.quantile(null, 0.99)
    # It sees a base that is off, though noise hides some of it.
    wrong = Cascade(priors.Gaussian(low_of(MIXTURE).mean + 1.0, 0.3), (upsampler,), kind(1.0))
    assert energy_distance(np.asarray(wrong.sample(jax.random.key(0), (400,))), both[400:]) > max(
        null
    )


def test_three_stages_are_raised_one_after_the_other():
    """4 -> 2 -> 1 by means, and back; no two stages are loaded at once."""
    half = np.full((1, 2), 0.5)
    middle = priors.Gaussian(jnp.zeros(LOW), LOW_COVARIANCE)
    base = priors.Gaussian(jnp.zeros(1), half @ LOW_COVARIANCE @ half.T)
    stages = (
        cascades.AnalyticUpsampler(middle, half, 0.5), cascades.AnalyticUpsampler(HIGH, DOWN, 0.5),
    )  # fmt: skip
    loaded = []

    def loader(index, stage):
        return lambda: loaded.append(index) or stage

    late = tuple(loader(index, stage) for index, stage in enumerate((base, *stages)))
    for kind in KINDS:
        draws = Cascade(base, stages, kind(0.5)).sample(jax.random.key(0), (20_000,))
        assert_covariance(draws, COVARIANCE)
        same = Cascade(late[0], late[1:], kind(0.5)).sample(jax.random.key(0), (3, 2))
        assert same.shape == (3, 2, SIZE)
    assert loaded == [0, 1, 2, 0, 1, 2]
    with pytest.raises(InputError, match="a filter carries all stages at once"):
        Cascade(late[0], late[1:]).sites("x")


def test_low_resolutions_are_upsampled():
    """As the particles of a filter at the low resolution would be."""
    low = priors.Gaussian(jnp.zeros(LOW), LOW_COVARIANCE).sample(jax.random.key(0), (10, 2000))
    for kind in KINDS:
        draws = of_gaussians(kind, 2.0).upsample(jax.random.key(1), low, num_axes=2)
        assert draws.shape == (10, 2000, SIZE)
        assert_covariance(draws.reshape(-1, SIZE), COVARIANCE)


Y, NOISE = jnp.array([0.9, -0.6, 0.4]), 0.4


def posterior_of(cascade, prior, **options):
    """By a filter that carries all stages, and exactly; y sees three entries of the last."""

    def model(y=None):
        x = cascade.sites("x")
        numpyro.sample("y", dist.Normal(x[:3], NOISE).to_event(1), obs=y)

    settings = {"num_particles": 256, "num_steps": 20, "num_chains": 4, "progress_bar": False}
    posterior = SMC(model, **settings | options).run(jax.random.key(0), y=Y)
    return posterior, exact.linear_gaussian_posterior(prior, np.eye(SIZE)[:3], Y, NOISE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "sites", "prior"),
    [
        (cascades.Truncated, ["x_0_noised", "x"], HIGH),
        (cascades.Truncated, ["x_0_noised", "x"], MIXTURE),
        (cascades.Gaussian, ["x_0", "x_0_noised", "x"], HIGH),
        (cascades.Gaussian, ["x_0", "x_0_noised", "x"], MIXTURE),
    ],
    ids=["truncated", "truncated-mixture", "gaussian", "gaussian-mixture"],
)
def test_a_filter_carries_all_stages(kind, sites, prior):
    """Three spreads of four chains, and 0.12 deviations: see tests/sampler/test_ordered_sites."""
    upsampler = cascades.AnalyticUpsampler(prior, DOWN, 1.0)
    posterior, truth = posterior_of(Cascade(low_of(prior), (upsampler,), kind(1.0)), prior)
    assert list(posterior.samples) == sites
    weights = np.exp(posterior.log_weights)
    spread = np.std(np.einsum("cn,cnd->cd", weights, posterior.samples["x"]), axis=0, ddof=1)
    deviation = np.sqrt(truth.variance)
    assert np.all(np.abs(posterior.mean()["x"] - truth.mean) < 3.0 * spread + 0.12 * deviation)
    np.testing.assert_allclose(posterior.std()["x"], deviation, rtol=0.1)
    error = posterior.pooled_log_evidence - float(truth.log_evidence)
    assert abs(error) < 3.0 * posterior.pooled_log_evidence_se + 0.02


class Denoiser(smcdiff.Module):
    """Of a Gaussian N(0, v I), as a network would be."""

    variance: float = 0.5

    def __call__(self, x, t):
        level = schedules.Cosine().level(t)
        return level.alpha * self.variance * x / (level.alpha**2 * self.variance + level.sigma**2)


@pytest.mark.parametrize("schedule", [schedules.Cosine(), schedules.VarianceExploding()], ids=str)
def test_a_chain_that_is_truncated(schedule):
    """Reverse steps of any denoiser that end at the level: the noised law, in those units."""
    variance, log_snr = 0.5, 1.5

    def denoiser(x, t):
        level = schedule.level(t)
        return level.alpha * variance * x / (level.alpha**2 * variance + level.sigma**2)

    prior = priors.DiffusionPrior(denoiser, schedule, (2,), data_variance=variance)
    noised = cascades._at_level.at_level(prior, log_snr)
    alpha2, sigma2 = (float(scale) ** 2 for scale in scales(log_snr))
    total = alpha2 * variance + sigma2
    ends = noised.schedule.log_snr(jnp.array([noised.schedule.t_min, noised.schedule.t_max]))
    assert ends[0] == pytest.approx(float(schedule.log_snr(schedule.t_min)), rel=0.02)
    for time in (0.3, 0.8):
        t = time * float(noised.schedule.t_max)
        level, x = noised.schedule.level(t), jnp.array([0.7, -1.2])
        exactly = level.alpha * total / (level.alpha**2 * total + level.sigma**2) * x
        np.testing.assert_allclose(noised.posterior_mean(x, t), exactly, rtol=1e-3)
    draws = noised.sample(jax.random.key(0), (4000,))
    # 8,000 numbers: 3 standard errors are 5 % of a variance; 100 ancestral steps lose some percent.
    np.testing.assert_allclose(draws.var(), total, rtol=0.1)


class Recorder(smcdiff.Module):
    """A denoiser that returns the share of noise of the low resolution that it is told."""

    told: jax.Array

    def given(self, condition, strength=None):
        return Recorder(jax.nn.sigmoid(-jnp.asarray(condition.log_snr, float)))

    def __call__(self, x, t):
        return jnp.broadcast_to(self.told, x.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_the_level_is_an_input_of_its_own(kind):
    """It is the log-SNR of the noise, at all times of the upsampler's own diffusion."""
    upsampler = priors.DiffusionPrior(
        Recorder(jnp.zeros(())), schedules.Cosine(), (SIZE,), num_steps=4
    )
    base = priors.Gaussian(jnp.zeros(LOW), 1.0)
    for log_snr in (0.25, 3.0):
        cascade, share = Cascade(base, (upsampler,), kind(log_snr)), jax.nn.sigmoid(-log_snr)
        # The last denoised mean.
        draws = cascade.sample(jax.random.key(0), (2,))
        np.testing.assert_allclose(draws, share, rtol=1e-6)
        with numpyro.handlers.seed(rng_seed=0):
            np.testing.assert_allclose(cascade.sites("x"), share, rtol=1e-6)
    assert np.all(Cascade(base, (upsampler,)).sample(jax.random.key(0), (2,)) == 0.0)


class Classes(smcdiff.Module):
    """A denoiser of a constant, by class."""

    value: jax.Array

    def given(self, condition, strength=None):
        return self if hasattr(condition, "image") else Classes(jnp.asarray(condition, float))

    def __call__(self, x, t):
        return jnp.broadcast_to(self.value, x.shape)


def test_captions_go_to_the_base_and_where_one_says_so():
    base, upsampler = (
        priors.DiffusionPrior(Classes(jnp.zeros(())), schedules.Cosine(), (n,), num_steps=4)
        for n in (LOW, SIZE)
    )
    cascade = Cascade(base, (upsampler,), cascades.Gaussian(3.0))
    assert np.all(cascade.given(2).sample(jax.random.key(0)) == 0.0)
    assert np.all(cascade.given(2, upsamplers=True).sample(jax.random.key(0)) == 2.0)
    given = cascade.given(2, threshold=thresholding.Static(1.0))
    assert given.base.threshold == thresholding.Static(1.0)
    assert given.upsamplers[0].threshold is None
    late = Cascade(lambda: base, (lambda: upsampler,)).given(2, upsamplers=True)
    assert np.all(late.sample(jax.random.key(0)) == 2.0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: cascades.Gaussian(math.inf), "Gaussian: log_snr is inf.*augmentation=None"),
        (lambda: cascades.Truncated(-30.0), "Truncated: log_snr is -30.0"),
        (lambda: Cascade(HIGH, ()), "there is no upsampler"),
        (lambda: Cascade(HIGH, (3,)), "a int among its stages"),
        (lambda: Cascade(HIGH, (HIGH,), 3.0), r"augmentation is 3.0; give cascades.Gaussian"),
        (lambda: cascades.AnalyticUpsampler(HIGH, DOWN, math.inf), "give a finite level"),
        (lambda: cascades.AnalyticUpsampler(dist.Normal(), DOWN, 1.0), "the prior is a Normal"),
        (
            lambda: of_gaussians(cascades.Gaussian, 1.0).upsamplers[0].given(
                cascades.LowResolution(jnp.zeros(LOW), 2.0)
            ),
            "made for log_snr 1, and the low resolution has 2",
        ),
        (
            lambda: of_gaussians(cascades.Gaussian, 1.0).upsamplers[0].given(jnp.zeros(LOW)),
            "it takes a cascades.LowResolution",
        ),
        (
            lambda: of_gaussians(cascades.Gaussian, 1.0).upsamplers[0].given(
                cascades.LowResolution(jnp.zeros(3), 1.0)
            ),
            r"has shape \(3,\), and `down` gives 2",
        ),
        (
            lambda: cascades._at_level.at_level(
                priors.DiffusionPrior(Denoiser(), schedules.Cosine(), (2,)), 15.0
            ),
            "the schedule of the prior that is truncated reaches from",
        ),
    ],
)  # fmt: skip
def test_bad_input(make, match):
    with pytest.raises(InputError, match=match):
        make()
