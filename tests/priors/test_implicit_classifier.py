"""The log ratio of two priors, by denoising, against their densities."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

from smcdiff import SMC, InputError, priors, proposals, schedules, twists

SCHEDULE = schedules.Cosine()
MEANS = jnp.array([[-1.0, 0.0], [1.0, 0.5]])
SHARES, VARIANCE = jnp.array([0.7, 0.3]), 0.4
MIXTURE = priors.GaussianMixture(SHARES, MEANS, jnp.array(VARIANCE), schedule=SCHEDULE)
COMPONENT = priors.Gaussian(MEANS[1], jnp.array(VARIANCE), schedule=SCHEDULE)
CENTRES = {"wide": jnp.array([0.2, -0.3]), "narrow": jnp.array([0.8, 0.1])}
COVARIANCES = {
    "wide": jnp.array([[1.5, 0.4], [0.4, 0.8]]), "narrow": jnp.array([[0.5, -0.2], [-0.2, 0.3]])
}  # fmt: skip
WIDE, NARROW = (
    priors.Gaussian(CENTRES[name], COVARIANCES[name], schedule=SCHEDULE)
    for name in ("wide", "narrow")
)
POINTS = jnp.array([[0.0, 0.0], [1.5, -1.0], [-2.0, 0.7]])


def _level(t):
    return schedules.Level.clean() if t is None else SCHEDULE.level(t)


def _log_ratio(x, t):
    """Log p_t of the narrow Gaussian less that of the wide one."""
    level = _level(t)
    narrow, wide = (
        jax.scipy.stats.multivariate_normal.logpdf(
            x, level.alpha * CENTRES[name],
            level.alpha**2 * COVARIANCES[name] + level.sigma**2 * jnp.eye(2),
        ) for name in ("narrow", "wide")
    )  # fmt: skip
    return narrow - wide


def _log_class(x, t=None):
    """Log p(second component given x_t) - log of its share, exact."""
    level = _level(t)
    terms = -0.5 * jnp.sum((x[None] - level.alpha * MEANS) ** 2, -1)
    logits = jnp.log(SHARES) + terms / (VARIANCE * level.alpha**2 + level.sigma**2)
    return jax.nn.log_softmax(logits)[1] - jnp.log(SHARES[1])


@pytest.mark.parametrize("t", [None, 0.2, 0.6, 0.95])
def test_gaussians(t):
    """As many pairs as dimensions make the mean over the noise exact for Gaussians."""
    ratio = priors.ImplicitClassifier(NARROW, WIDE, num_levels=32, num_pairs=2)
    found, slopes = jax.jit(jax.vmap(jax.value_and_grad(lambda x: ratio(x, t))))(POINTS)
    wanted, exact_slopes = jax.vmap(jax.value_and_grad(lambda x: _log_ratio(x, t)))(POINTS)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    np.testing.assert_allclose(slopes, exact_slopes, atol=3e-3)


@pytest.mark.parametrize("t", [None, 0.5])
def test_a_mixture(t):
    """The noise is random there: the mean over 16 seeds is the truth within 3 standard errors.

    And 0.003: norms of the noise are those of 16 shares of a Gaussian's.
    """
    made = [
        priors.ImplicitClassifier(COMPONENT, MIXTURE, num_levels=32, num_pairs=32, seed=seed)
        for seed in range(16)
    ]
    every = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
    values = jax.jit(jax.vmap(lambda ratio: jax.vmap(lambda x: ratio(x, t))(POINTS)))(every)
    truth = jax.vmap(lambda x: _log_class(x, t))(POINTS)
    errors = values.std(0) / 4.0
    assert np.all(errors < 0.05)
    assert np.all(np.abs(values.mean(0) - truth) < 3.0 * errors + 3e-3)


LIKELIHOOD = priors.ImplicitClassifier(COMPONENT, MIXTURE, num_levels=12, num_pairs=8)


def _model(strength):
    x = numpyro.sample("x", MIXTURE)
    numpyro.factor("condition", strength * LIKELIHOOD(x))


@pytest.mark.slow
def test_it_is_a_likelihood_and_its_own_twist():
    """Prior times ratio is the conditional prior, of evidence one; the twist is optimal."""
    twist = priors.ImplicitClassifier(COMPONENT, MIXTURE, num_levels=6, num_pairs=2)
    smc = SMC(
        _model, proposals.ClassifierFree(COMPONENT, twist=twists.Classifier(twist)),
        num_particles=64, num_steps=10, num_chains=16, progress_bar=False,
    )  # fmt: skip
    posterior = smc.run(jax.random.key(0), 1.0)
    ratio = np.exp(posterior.log_evidence)
    # 3 standard errors of 16 chains; the noise of 8 pairs moves the likelihood by some 0.01.
    assert abs(ratio.mean() - 1.0) < 3.0 * ratio.std() / 4.0 + 0.01
    assert posterior.ess[:, -1].mean() > 32


def test_bad_input():
    other = priors.Gaussian(jnp.zeros(3), 1.0, schedule=SCHEDULE)
    with pytest.raises(InputError, match=r"conditional prior have shape \(3,\)"):
        priors.ImplicitClassifier(other, WIDE)
    other = priors.Gaussian(jnp.zeros(2), 1.0, schedule=schedules.LinearBeta())
    with pytest.raises(InputError, match="another noise schedule"):
        priors.ImplicitClassifier(other, WIDE)
    with pytest.raises(InputError, match="must be at least 2 and 1"):
        priors.ImplicitClassifier(NARROW, WIDE, num_levels=1)
