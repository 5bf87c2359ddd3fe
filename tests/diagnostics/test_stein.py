"""`score_stein_discrepancy` against sums by hand, a Gaussian's value, and draws good and bad."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import exact, priors
from smcdiff.diagnostics.stein import default_log_snr, score_stein_discrepancy
from smcdiff.errors import InputError
from tests.proposals.models import DENSE, GAUSSIAN, MIXTURE, NOISE, Y, exact_model, isotropic, model

KEY = jax.random.key(0)
POSTERIORS = {
    name: exact.linear_gaussian_posterior(prior, DENSE, Y, NOISE)
    for name, prior in (("gaussian", GAUSSIAN), ("mixture", MIXTURE))
}
PRIORS = {"gaussian": GAUSSIAN, "mixture": MIXTURE}


def _judge(samples, prior, **settings):
    return score_stein_discrepancy(KEY, samples, model, prior, DENSE, NOISE, y=Y, **settings)


def _by_hand(samples, scores, weights, scale):
    """V- and U-statistic by two loops, the kernel's derivatives by JAX."""

    def kernel(x, y):
        return (scale**2 + jnp.sum((x - y) ** 2)) ** -0.5

    @jax.jit
    def u(x, y, at_x, at_y):
        by_x, by_y = jax.grad(kernel, 0)(x, y), jax.grad(kernel, 1)(x, y)
        mixed = jax.jacfwd(jax.grad(kernel, 0), 1)(x, y)
        return at_x @ at_y * kernel(x, y) + at_x @ by_y + at_y @ by_x + jnp.trace(mixed)

    count = len(samples)
    table = np.array(
        [[u(samples[i], samples[j], scores[i], scores[j]) for j in range(count)]
         for i in range(count)]
    )  # fmt: skip
    pairs = weights[:, None] * weights[None] * (1.0 - np.eye(count))
    return weights @ table @ weights, np.sum(pairs * table) / np.sum(pairs)


def test_sums_by_hand():
    draws = 1.5 * POSTERIORS["mixture"].sample(KEY, (8,)) + 0.3
    weights = np.array([0.2, 0.05, 0.1, 0.0, 0.15, 0.2, 0.2, 0.1])
    scores = jax.vmap(jax.grad(POSTERIORS["mixture"].log_prob))(draws)
    v_statistic, u_statistic = _by_hand(draws, scores, weights, 0.7)
    # At a level at which the prior's blur is far below its variances.
    found = _judge(draws, MIXTURE, weights=weights, scale=0.7, log_snr=9.0, num_pairs=0)
    np.testing.assert_allclose(found.v_statistic, v_statistic, rtol=5e-3)
    np.testing.assert_allclose(found.u_statistic, u_statistic, rtol=5e-3)
    np.testing.assert_allclose(found.score_ksd, np.sqrt(v_statistic / 3), rtol=5e-3)


def test_closed_form_of_a_shifted_gaussian():
    """For q = N(m, I) and p = N(0, I), u is E[k(x, y)] |m|^2: the score is off by -m everywhere."""
    prior = priors.Gaussian(jnp.zeros(2), jnp.eye(2))

    def no_data(prior):
        x = numpyro.sample("x", prior)
        numpyro.factor("y", 0.0 * jnp.sum(x))

    shift = jnp.array([0.8, 0.0])
    normal = jax.random.normal(KEY, (2000, 2))
    found = score_stein_discrepancy(KEY, normal + shift[None], no_data, prior, scale=1.0)
    apart = np.random.default_rng(0).normal(size=(200_000, 2)) * 2**0.5
    expected = 0.64 * np.mean((1.0 + np.sum(apart**2, axis=1)) ** -0.5)
    assert abs(found.u_statistic - expected) < 3 * found.standard_error < 0.2 * expected


@pytest.mark.parametrize("name", POSTERIORS)
def test_exact_draws_read_zero_and_wrong_ones_more(name):
    """The U-statistics of 12 sets of exact draws, and their errors, are right by their spread."""
    prior, posterior = PRIORS[name], POSTERIORS[name]
    sets = posterior.sample(KEY, (12, 200))
    found = [_judge(draws, prior, scale=1.0) for draws in sets]
    standard = np.array([one.u_statistic / one.standard_error for one in found])
    assert abs(standard.mean()) < 3 / 12**0.5 and 0.5 < standard.std() < 1.6
    draws = sets[:3].reshape(600, 3)
    reference = _judge(draws, prior, scale=1.0)
    centre = draws.mean(0, keepdims=True)
    wrong = {"shifted": draws + 0.4, "wide": centre + 1.5 * (draws - centre),
             "narrow": centre + 0.5 * (draws - centre)}  # fmt: skip
    for case, values in wrong.items():
        one = _judge(values, prior, scale=1.0)
        assert one.u_statistic > 4 * one.standard_error, case
        # Narrow draws have small scores, and so a small V-statistic too: what U is there for.
        assert case == "narrow" or one.v_statistic > 1.5 * reference.v_statistic, case


@pytest.mark.parametrize(("distance", "seen"), [(2.0, True), (10.0, False)])
def test_a_lost_mode_is_seen_where_modes_touch_only(distance, seen):
    """The known blindness: half the posterior gone, and draws that read like exact ones."""
    means = jnp.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
    prior = priors.GaussianMixture(jnp.array([0.5, 0.5]), means, 1.0)
    blind = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    posterior = exact.linear_gaussian_posterior(prior, blind, Y, NOISE)
    one_mode = priors.Gaussian(means[0], jnp.eye(3))
    lost = exact.linear_gaussian_posterior(one_mode, blind, Y, NOISE).sample(KEY, (400,))

    def judge(samples):
        return score_stein_discrepancy(
            KEY, samples, model, prior, blind, NOISE, y=Y, scale=1.0, num_pairs=0
        )

    whole, half = judge(posterior.sample(KEY, (400,))), judge(lost)
    assert abs(whole.u_statistic) < 4 * whole.standard_error
    assert (half.u_statistic > 4 * half.standard_error) == seen
    if not seen:
        assert abs(half.v_statistic / whole.v_statistic - 1.0) < 0.1


def test_weights_make_good_what_they_can():
    """Draws of another law read far better by their importance weights, and copies like weights."""
    posterior = POSTERIORS["mixture"]
    other = priors.Gaussian(posterior.mean + 0.3, 1.5 * posterior.covariance_matrix())
    draws = other.sample(KEY, (600,))
    log_weights = posterior.log_prob(draws) - other.log_prob(draws)
    weights = jax.nn.softmax(log_weights)
    plain, weighted = (
        _judge(draws, MIXTURE, scale=1.0),
        _judge(draws, MIXTURE, weights=weights, scale=1.0),
    )
    assert plain.u_statistic > 4 * plain.standard_error
    assert weighted.u_statistic < 0.2 * plain.u_statistic
    assert abs(weighted.u_statistic) < 4 * weighted.standard_error
    twice = jnp.concatenate([draws[:50], draws[:25]])
    heavy = np.repeat([2.0, 1.0], 25) / 75
    copies = _judge(twice, MIXTURE, scale=1.0, num_pairs=0)
    same = _judge(draws[:50], MIXTURE, weights=heavy, scale=1.0, num_pairs=0)
    np.testing.assert_allclose(copies.v_statistic, same.v_statistic, rtol=1e-5)
    collapsed = _judge(draws[:50], MIXTURE, weights=np.eye(50)[0], scale=1.0)
    assert collapsed.v_statistic > 0.0 and np.isnan(collapsed.u_statistic)


def test_a_denoiser_is_judged_like_the_prior_that_it_stands_for():
    """Of images, with an event of two axes, whose kernel scale is the median distance."""
    learned, truth = isotropic(jnp.full((4, 3), 0.5), 0.25)

    def observed(prior, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Poisson(jnp.exp(x)).to_event(2), obs=y)

    draws, y = truth.sample(KEY, (60,)), jnp.ones((4, 3))
    first = score_stein_discrepancy(KEY, draws, observed, truth, y=y)
    second = score_stein_discrepancy(KEY, draws, observed, learned, y=y)
    flat = np.asarray(draws).reshape(60, -1)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    assert (
        first.scale == second.scale == pytest.approx(np.median(distances[np.triu_indices(60, 1)]))
    )
    # Blurred by exp(-5) where the variance is 0.25.
    np.testing.assert_allclose(first.v_statistic, second.v_statistic, rtol=0.1)
    assert default_log_snr(learned) == 5.0 != default_log_snr(truth)


def test_size_of_images():
    """A thousand draws of 784 entries: the n x n x d array would take 6 GB."""
    prior = priors.Gaussian(jnp.zeros(784), jnp.ones(784))

    def some(prior, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:10], 0.5).to_event(1), obs=y)

    y = jnp.zeros(10)
    matrix = jnp.eye(784)[:10]
    draws = exact.linear_gaussian_posterior(prior, matrix, y, 0.5).sample(KEY, (1000,))
    found = score_stein_discrepancy(KEY, draws, some, prior, y=y, num_pairs=0)
    assert abs(found.u_statistic) < 4 * found.standard_error


def test_messages(unchecked):
    draws = POSTERIORS["gaussian"].sample(KEY, (8,))
    cases = [
        (dict(samples=draws[:1]), r"samples has shape \(1, 3\); it must be \(n, \*\(3,\)\)"),
        (dict(samples=draws[:, :2]), r"samples has shape \(8, 2\)"),
        (dict(samples=draws.at[0, 0].set(jnp.nan)), "samples has NaN or infinite entries"),
        (dict(weights=jnp.ones(7) / 7), r"weights has shape \(7,\); there are 8 draws"),
        (dict(weights=jnp.ones(8)), "weights sum to 8"),
        (dict(weights=-jnp.ones(8) / 8), "the smallest is -0.125"),
        (dict(num_pairs=-1), "num_pairs is -1; it must be at least 0"),
        (dict(log_snr=-50.0), "log_snr is -50.0, which the prior's schedule does not reach"),
        (dict(log_snr=np.inf), "log_snr is inf"),
        (dict(scale=0.0), "scale is 0.0; it must be positive"),
        (dict(samples=jnp.zeros((8, 3))), "None takes the median distance"),
    ]
    for settings, message in cases:
        with pytest.raises(InputError, match=message):
            _judge(**{"samples": draws, "prior": GAUSSIAN, **settings})
    with pytest.raises(InputError, match="observed without noise"):
        score_stein_discrepancy(KEY, draws, exact_model, GAUSSIAN, DENSE, y=Y)

    def rooted(prior):
        x = numpyro.sample("x", prior)
        numpyro.factor("y", -jnp.sum(jnp.sqrt(jnp.maximum(x, 0.0))))

    with pytest.raises(InputError, match="the posterior's score is not finite at 8 of 8 draws"):
        score_stein_discrepancy(KEY, -jnp.abs(draws), rooted, GAUSSIAN)


def _rounded_by_numpy(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(np.round, shape, x, vmap_method="expand_dims")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_rounded_by_numpy, r"no gradient \(ValueError: Pure callbacks .*give .* jax.custom_jvp"),
        # All draws lie on one step; the model has others.
        (jnp.floor, "gradient .* is zero at all draws, although it varies with x"),
    ],
)
def test_models_of_which_the_score_says_nothing(function, message):
    def stepped(prior, y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(function(x), 0.1).to_event(1), obs=y)

    draws = 0.1 + 0.8 * jax.random.uniform(KEY, (8, 3))
    with pytest.raises(InputError, match=message):
        score_stein_discrepancy(KEY, draws, stepped, GAUSSIAN, jnp.zeros(3))
