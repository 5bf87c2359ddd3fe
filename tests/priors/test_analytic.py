"""Gaussian and mixture priors: every closed form against an independent computation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal

from smcdiff import priors
from smcdiff.errors import InputError

RNG = np.random.default_rng(0)
SQUARES = RNG.normal(size=(2, 3, 3))
MEANS = np.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]])
WEIGHTS = np.array([0.3, 0.7])
MATRICES = SQUARES @ SQUARES.swapaxes(1, 2) + 0.2 * np.eye(3)
PRIORS = {
    "scalar": priors.GaussianMixture(WEIGHTS, MEANS, 0.5),
    "component": priors.GaussianMixture(WEIGHTS, MEANS, np.array([0.5, 1.5])),
    "diagonal": priors.GaussianMixture(WEIGHTS, MEANS, np.array([[0.5, 1, 2], [1, 0.1, 1]])),
    "full": priors.GaussianMixture(WEIGHTS, MEANS, MATRICES),
    "factors": priors.GaussianMixture.of_factors(
        WEIGHTS, MEANS, RNG.normal(size=(2, 3, 1)), np.array([0.3, 0.6])
    ),
    "gaussian": priors.Gaussian(MEANS[0], MATRICES[0]),
    "gaussian-diagonal": priors.Gaussian(MEANS[0], np.array([0.5, 1.0, 2.0])),
}
EACH = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())


def _log_joint(prior, x):
    """Log density of each component and of x given it, by SciPy; the last axis is components."""
    covariances = jax.jit(lambda prior: prior.component_covariances())(prior)
    normals = [
        multivariate_normal(mean, covariance).logpdf(x)
        for mean, covariance in zip(np.asarray(prior.means), np.asarray(covariances), strict=True)
    ]
    return np.asarray(prior.log_weights) + np.stack(normals, axis=-1)


@EACH
def test_log_prob_matches_scipy(prior):
    x = prior.sample(jax.random.key(2), (7, 2))
    expected = logsumexp(_log_joint(prior, x), axis=-1)
    np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-4)


@EACH
def test_component_probabilities_are_bayes_rule(prior):
    x = np.float32([0.4, 0.3, 0.6])  # between the two means
    found = jax.jit(lambda prior, x: prior.component_probabilities(x))(prior, x)
    np.testing.assert_allclose(found, softmax(_log_joint(prior, x)), rtol=1e-3, atol=1e-6)


@EACH
def test_moments_of_draws(prior):
    """4 standard errors of 50,000 draws; 5 % for covariances, whose error is about 1 %."""
    x = np.asarray(prior.sample(jax.random.key(3), (50_000,)))

    @jax.jit
    def moments(prior):
        return prior.mean, prior.variance, prior.covariance_matrix()

    mean, variance, covariance = map(np.asarray, moments(prior))
    assert np.all(np.abs(x.mean(0) - mean) < 4 * x.std(0) / 50_000**0.5)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.05 * variance.max())
    np.testing.assert_allclose(variance, np.diag(covariance), rtol=1e-4)


@EACH
def test_denoiser_obeys_tweedie(prior):
    """score = grad log p_t, where p_t is the exact marginal."""

    @jax.jit
    def scores(prior, time):
        marginal = prior.marginal(prior.schedule.level(time))
        x = marginal.sample(jax.random.key(4))
        return prior.score(x, time), jax.grad(marginal.log_prob)(x)

    for time in (0.05, 0.5, 1.5):
        np.testing.assert_allclose(*scores(prior, time), rtol=2e-3, atol=2e-3)


@EACH
def test_reverse_kernel_maps_marginal_to_marginal(prior):
    """Draws of p_t pushed through the exact kernel have the moments of p_s (4 standard errors)."""

    @jax.jit
    def draws(prior, key):
        t, s = (prior.schedule.level(time) for time in (1.0, 0.1))
        keys = jax.random.split(key, (3, 20_000))
        noisy = jax.vmap(prior.marginal(t).sample)(keys[0])
        pushed = jax.vmap(lambda x, key: prior.reverse(x, t, s).sample(key))(noisy, keys[1])
        return pushed, jax.vmap(prior.marginal(s).sample)(keys[2])

    pushed, direct = map(np.asarray, draws(prior, jax.random.key(5)))
    for power in (1, 2):
        first, second = pushed**power, direct**power
        error = np.sqrt((first.var(0) + second.var(0)) / 20_000)
        assert np.all(np.abs(first.mean(0) - second.mean(0)) < 4 * error)


def test_posterior_covariance_of_a_gaussian():
    """Closed form C_t against (S^-1 + SNR I)^-1."""
    prior = PRIORS["gaussian"]
    level = prior.schedule.level(0.3)
    snr = np.exp(float(level.log_snr))
    expected = np.linalg.inv(np.linalg.inv(MATRICES[0]) + snr * np.eye(3))
    found = jax.jit(prior.posterior_covariance_times)(jnp.eye(3), level)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@EACH
def test_is_a_numpyro_distribution(prior):
    """jit, expand, plates and Predictive."""
    x = np.float32([0.4, 0.3, 0.6])
    np.testing.assert_allclose(jax.jit(lambda p, v: p.log_prob(v))(prior, x), prior.log_prob(x))
    assert prior.expand((4,)).sample(jax.random.key(0)).shape == (4, 3)

    def model():
        with numpyro.plate("items", 5):
            numpyro.sample("x", prior)

    draws = numpyro.infer.Predictive(model, num_samples=2)(jax.random.key(7))
    assert draws["x"].shape == (2, 5, 3)


def test_factors_are_the_dense_mixture():
    """Denoiser and reverse kernel of `of_factors` against full covariances, at three levels."""
    factors = PRIORS["factors"]
    dense = priors.GaussianMixture(
        WEIGHTS, MEANS, factors.component_covariances(), schedule=factors.schedule
    )

    @jax.jit
    def both(time):
        t, s = (factors.schedule.level(v) for v in (time, 0.5 * time))
        x = dense.marginal(t).sample(jax.random.key(8))
        laws = [prior.reverse(x, t, s) for prior in (factors, dense)]
        y = laws[1].sample(jax.random.key(9))
        return (
            [prior.denoise(x, time) for prior in (factors, dense)],
            [law.mean for law in laws],
            [law.mean_variance for law in laws],
            [law.log_prob(y) for law in laws],
        )

    for time in (0.01, 0.5, 1.5):
        denoised, means, variances, densities = both(time)
        np.testing.assert_allclose(*denoised, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(*means, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(*variances, rtol=1e-3)
        np.testing.assert_allclose(*densities, rtol=1e-3, atol=1e-3)


def test_fitted_schedule_covers_the_scales():
    prior = priors.GaussianMixture(jnp.ones(2), jnp.array([[-100.0, 0.0], [100.0, 0.0]]), 0.01)
    end, start = (
        prior.schedule.level(t)
        for t in (jnp.asarray(prior.schedule.t_max), jnp.asarray(prior.schedule.t_min))
    )
    assert end.alpha * 100.0 < 0.5 * end.sigma  # the components have merged
    assert start.sigma < 0.1 * 0.1  # the components are resolved


BAD = [
    (lambda: priors.Gaussian(np.zeros(2), np.ones(3)), "covariance has shape"),
    (lambda: priors.Gaussian(np.zeros(2), np.array([1.0, -1.0])), "positive definite"),
    (lambda: priors.Gaussian(np.zeros(2), -np.eye(2)), "positive definite"),
    (lambda: priors.GaussianMixture(np.ones(3), MEANS, 1.0), "do not fit"),
    (lambda: priors.GaussianMixture(WEIGHTS, MEANS, np.ones(3)), "covariances have shape"),
    (lambda: priors.GaussianMixture(np.array([-1.0, 2.0]), MEANS, 1.0), "non-negative"),
    (lambda: priors.GaussianMixture(np.zeros(2), MEANS, 1.0), "not all 0"),
    (lambda: priors.Gaussian(np.zeros(2), np.array([[1.0, 0.9], [0.0, 1.0]])), "not symmetric"),
    (
        lambda: priors.GaussianMixture.of_factors(WEIGHTS, MEANS, np.ones((2, 3, 3)), 1.0),
        "q < d",
    ),
    (
        lambda: priors.GaussianMixture.of_factors(WEIGHTS, MEANS, np.ones((2, 3, 1)), 0.0),
        "positive definite",
    ),
    (lambda: priors.Gaussian(np.array([np.nan, 0.0]), 1.0), "means have NaN"),
    (lambda: priors.Gaussian(np.zeros(2), np.inf), "must be > 0, and finite"),
    (
        lambda: priors.GaussianMixture(WEIGHTS, np.zeros((2, 2)), np.eye(2) + 1.0),
        r"may be variances .*\(2, 2, 2\)",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def _log_responsibilities(prior, x, time):
    level = prior.schedule.level(time)
    return prior.reverse(x, level, level).log_weights


NARROW = {
    "scalar": lambda k, d: 1.0,
    "diagonal": lambda k, d: 1.0 + np.random.default_rng(1).uniform(size=(k, d)),
}


@pytest.mark.parametrize("variances", NARROW.values(), ids=NARROW.keys())
@pytest.mark.parametrize("count", [3, 200])  # many components take another path
def test_responsibilities_keep_their_digits(variances, count):
    """Two components side by side, 1e4 of their scale from the origin; against float64."""
    rng, size, scale = np.random.default_rng(0), 5, 1e-3
    means = 10.0 * rng.normal(size=(count, size))
    means[1] = means[0] + scale * rng.normal(size=size)
    variances = scale**2 * np.asarray(variances(count, size))
    prior = priors.GaussianMixture(np.ones(count), means, variances)
    x = np.float32(means[0] + 0.5 * scale)
    means, variances = np.asarray(prior.means, np.float64), np.broadcast_to(variances, means.shape)
    log_p = -0.5 * np.sum((np.asarray(x) - means) ** 2 / variances + np.log(variances), axis=1)
    expected = means * np.exp(log_p - np.logaddexp.reduce(log_p))[:, None]
    # The denoiser at a level whose noise is a thousandth of the scale: x, by its weights.
    log_weights = jax.jit(_log_responsibilities)(prior, x, 1e-13)
    found = np.exp(np.asarray(log_weights))
    np.testing.assert_allclose(found @ means[:, 0], expected[:, 0].sum(), atol=1e-6)
    weights = np.exp(log_p - np.logaddexp.reduce(log_p))
    np.testing.assert_allclose(found[:2], weights[:2], atol=2e-3)


def test_responsibilities_of_factors_keep_their_digits():
    """The rest of the covariance is 1e-6 of what the factors explain."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, 8, 2))
    means = np.stack([np.zeros(8), 1e-3 * rng.normal(size=8)])
    prior = priors.GaussianMixture.of_factors(np.ones(2), means, factors, np.full(2, 1e-6))
    covariances = factors @ np.swapaxes(factors, 1, 2) + 1e-6 * np.eye(8)
    x = np.float32(factors[0] @ np.array([1.0, -0.5]) + 1e-3 * rng.normal(size=8))
    expected = [
        multivariate_normal(m, c).logpdf(x) for m, c in zip(means, covariances, strict=True)
    ]
    log_weights = np.asarray(jax.jit(_log_responsibilities)(prior, x, 1e-12))
    # Thousands of nat apart; float32 coordinates of size 1 leave 1e-4 of 1e-3, so 1e-3 of that.
    np.testing.assert_allclose(
        log_weights[0] - log_weights[1], expected[0] - expected[1], rtol=0.01
    )


@pytest.mark.parametrize("variances", [0.5, np.linspace(0.2, 1.0, 6).reshape(2, 3)])
def test_events_of_any_shape(variances):
    """An image-shaped Gaussian is the flat one, in its own shape."""
    mean = np.arange(6.0).reshape(2, 3)
    image = priors.Gaussian(mean, variances)
    flat = priors.Gaussian(mean.ravel(), np.ravel(variances) if np.ndim(variances) else variances)
    assert image.event_shape == (2, 3) and image.mean.shape == image.variance.shape == (2, 3)
    key, t = jax.random.key(0), 0.4
    x = np.asarray(image.sample(key, (4,)))
    np.testing.assert_allclose(x.reshape(4, 6), flat.sample(key, (4,)), rtol=1e-6)
    np.testing.assert_allclose(image.log_prob(x), flat.log_prob(x.reshape(4, 6)), rtol=1e-5)
    denoised = jax.jit(image.denoise)(x[0], t).ravel()
    np.testing.assert_allclose(denoised, jax.jit(flat.denoise)(x[0].ravel(), t), rtol=1e-5)


def test_mixtures_of_images():
    means = np.arange(12.0).reshape(2, 2, 3)
    image = priors.GaussianMixture(WEIGHTS, means, 0.5)
    flat = priors.GaussianMixture(WEIGHTS, means.reshape(2, 6), 0.5)
    x = np.asarray(image.sample(jax.random.key(0)))
    assert x.shape == (2, 3)
    np.testing.assert_allclose(image.log_prob(x), flat.log_prob(x.ravel()), rtol=1e-5)
    found = jax.jit(image.component_probabilities)(x)
    expected = jax.jit(flat.component_probabilities)(x.ravel())
    np.testing.assert_allclose(found, expected, rtol=1e-5)
