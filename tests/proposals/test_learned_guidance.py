"""Classifier and classifier-free guidance on a mixture whose classifier is exact at every t."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import (
    SMC,
    InputError,
    exact,
    kernels,
    priors,
    proposals,
    schedules,
    thresholding,
    twists,
)
from smcdiff.problem import ReverseModel, read
from tests.proposals.models import (
    DENSE,
    GAUSSIAN,
    NOISE,
    Y,
    conditional_sampler,
    model,
    reverse_model,
)

MEANS = jnp.array([[-1.5, 0.0], [1.5, 0.5], [0.0, 1.5]])
PRIOR = priors.GaussianMixture(jnp.array([0.5, 0.3, 0.2]), MEANS, jnp.array(0.6))
LABEL = 2


def _log_class(x, t):
    """Log p(class = LABEL given x_t), exact: the mixture's responsibilities."""
    level = PRIOR.schedule.level(t)
    terms = -0.5 * jnp.sum((x[None] - level.alpha * MEANS) ** 2, -1)
    logits = PRIOR.log_weights + terms / (0.6 * level.alpha**2 + level.sigma**2)
    return jax.nn.log_softmax(logits)[LABEL]


def _model(omega):
    x = numpyro.sample("x", PRIOR)
    # t_min stands for 0: the log-SNR of a schedule is infinite there.
    logits = jnp.log(jnp.array([1.0, jnp.exp(_log_class(x, PRIOR.schedule.t_min))]))
    with numpyro.handlers.scale(scale=omega):
        numpyro.sample("class", dist.Bernoulli(jnp.exp(logits[1])), obs=1)


def _truth(omega):
    """Evidence and mean of prior times classifier^omega, by quadrature on a fine grid."""
    axis = jnp.linspace(-7.0, 7.0, 281)
    grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    log_class = jax.vmap(lambda x: _log_class(x, PRIOR.schedule.t_min))(grid)
    density = jnp.exp(PRIOR.log_prob(grid) + omega * log_class)
    evidence = jnp.sum(density) * (axis[1] - axis[0]) ** 2
    return float(jnp.log(evidence)), np.asarray(density @ grid / jnp.sum(density))


def _conditional():
    """The prior of the class, with the mixture's schedule."""
    return priors.Gaussian(MEANS[LABEL], jnp.array(0.6), schedule=PRIOR.schedule)


BOUND = 4.5
"""Of thresholds: means are at most 1.5, and four standard deviations beyond are within."""


def _free(threshold):
    return lambda omega: proposals.ClassifierFree(
        _conditional(), omega, threshold=threshold, twist=twists.Classifier(_log_class, omega)
    )


GUIDED = {
    "classifier": lambda omega: proposals.ClassifierGuidance(_log_class, omega),
    "classifier-free": _free(None),
    "static": _free(thresholding.Static(BOUND)),
    "dynamic": _free(thresholding.Dynamic(0.9, BOUND)),
}
FAST = [("classifier", 2.0), ("classifier-free", 1.0), ("dynamic", 5.0)]


@pytest.mark.parametrize(
    ("name", "omega"),
    [
        case if case in FAST else pytest.param(*case, marks=pytest.mark.slow)
        for case in itertools.product(GUIDED, (1.0, 2.0, 5.0))
    ],
)
def test_target_is_prior_times_classifier_to_the_omega(name, omega):
    log_evidence, mean = _truth(omega)
    smc = SMC(_model, GUIDED[name](omega), num_particles=256, num_steps=20, num_chains=64,
              kernel=kernels.Exact(), progress_bar=False)  # fmt: skip
    posterior = smc.run(jax.random.key(0), omega)
    ratio = np.exp(posterior.log_evidence - log_evidence)
    # 64 chains: 3 standard errors of their mean.
    assert abs(ratio.mean() - 1.0) < 3 * ratio.std() / 8
    estimates = np.einsum("cn,cnd->cd", np.exp(posterior.log_weights), posterior.samples["x"])
    weights = ratio / ratio.sum()
    error = np.sqrt(weights**2 @ (estimates - mean) ** 2)
    assert np.all(np.abs(weights @ estimates - mean) < 3 * error)
    # A twist that is exact at every level loses only what the coarse steps lose.
    assert posterior.ess[:, -1].mean() > (128 if omega < 5.0 else 64)


def _problem_model(kernel, weighted):
    problem = read(_model, (1.0,), {})
    levels = schedules.UniformLogSNR()(PRIOR.schedule, 10)
    return ReverseModel(problem, kernel, levels, weighted)


def test_published_updates():
    """Weights off, one step: mean + tau^2 omega grad (Dhariwal), m + omega (m_c - m) (Ho)."""
    model = _problem_model(kernels.DDIM(), weighted=False)
    x, key, omega = jnp.array([0.4, -0.3]), jax.random.key(0), 2.5
    t, s = model.level(4), model.level(5)
    plain, given = PRIOR.denoise(x, t.time), _conditional().denoise(x, t.time)
    ratio = float(jnp.exp(t.log_snr - s.log_snr))
    variance = float(s.sigma) ** 2 * (1.0 - ratio)
    c = np.sqrt(float(s.sigma) ** 2 - variance) / float(t.sigma)
    k = float(s.alpha) - float(t.alpha) * c
    unguided = model.transition(x, plain, t, s).sample(key)

    def moved(proposal):
        prepared = proposal.prepare(key, model)
        evaluation = proposal.evaluate(model, prepared, x, t)
        return proposal.propose(key, model, prepared, x, evaluation, t, s).x - unguided

    free = moved(proposals.ClassifierFree(_conditional(), omega))
    np.testing.assert_allclose(free, k * omega * (given - plain), rtol=1e-4, atol=1e-6)
    guided = moved(proposals.ClassifierGuidance(_log_class, omega))
    gradient = jax.grad(_log_class)(x, t.time)
    np.testing.assert_allclose(guided, variance * omega * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("threshold", [thresholding.Static(0.8), thresholding.Dynamic(0.5, 0.8)])
def test_kernel_and_twist_see_one_thresholded_mean(threshold):
    """The prior's threshold is in the mean of both; the proposal's in the guided one."""
    learned = priors.DiffusionPrior(
        PRIOR.posterior_mean, PRIOR.schedule, (2,), data_variance=3.0, threshold=threshold
    )

    def observed(y=None):
        x = numpyro.sample("x", learned)
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)

    problem = read(observed, (), {"y": jnp.ones(2)})
    levels = schedules.UniformLogSNR()(learned.schedule, 10)
    model = ReverseModel(problem, kernels.DDIM(), levels, True)
    x, key, t, s = jnp.array([3.0, -2.0]), jax.random.key(0), model.level(6), model.level(7)
    free, mean = PRIOR.posterior_mean(x, t.time), threshold(PRIOR.posterior_mean(x, t.time))
    assert np.any(np.abs(mean - free) > 0.1)
    twisted = proposals.Twisted()
    evaluation = twisted.evaluate(model, twisted.prepare(key, model), x, t)
    np.testing.assert_allclose(evaluation.denoised, mean, rtol=1e-5)
    of_kernel = kernels.DDIM()(learned, x, mean, t, s)
    np.testing.assert_allclose(
        model.transition(x, evaluation.denoised, t, s).mean, of_kernel.mean, rtol=1e-5
    )
    guide = proposals.ClassifierFree(_conditional(), 3.0, threshold=threshold)
    guided = guide.evaluate(model, guide.prepare(key, model), x, t)
    wanted = threshold(mean + 3.0 * (_conditional().posterior_mean(x, t.time) - mean))
    np.testing.assert_allclose(guided.detail, wanted, rtol=1e-4)
    beyond = mean + 5.0 * (_conditional().posterior_mean(x, t.time) - mean)
    assert np.max(np.abs(beyond)) > BOUND  # so that it matters in the test of the target
    np.testing.assert_allclose(guided.denoised, mean, rtol=1e-5)


def test_amortized_draws_with_an_exact_kernel_follow_the_network():
    """Weights off, where the kernel makes no use of the network's denoised mean."""
    proposal = conditional_sampler("Amortized", GAUSSIAN, DENSE, NOISE)
    smc = SMC(model, proposal, num_particles=2000, num_steps=100, weighted=False,
              kernel=kernels.Exact(), progress_bar=False)  # fmt: skip
    posterior = smc.run(jax.random.key(0), GAUSSIAN, DENSE, NOISE, y=Y)
    truth = exact.linear_gaussian_posterior(GAUSSIAN, DENSE, Y, NOISE)
    # Six standard errors; the draws of the prior miss the mean by 1.
    bound = 6 * jnp.sqrt(truth.variance / 2000)
    assert jnp.all(jnp.abs(posterior.samples["x"][0].mean(0) - truth.mean) < bound)


def test_bad_input():
    model = _problem_model(kernels.DDIM(), weighted=True)
    with pytest.raises(InputError, match=r"returns shape \(2,\)"):
        proposals.ClassifierGuidance(lambda x, t: x).check(model)
    with pytest.raises(InputError, match="log_prob\\(x, t\\) fails on x of shape"):
        proposals.ClassifierGuidance(lambda x, t: x @ jnp.ones(3)).check(model)
    other = priors.Gaussian(jnp.zeros(2), jnp.array(0.6), schedule=schedules.Cosine())
    with pytest.raises(InputError, match="another noise schedule"):
        proposals.ClassifierFree(other).check(model)
    trained = jax.tree_util.Partial(_log_class)
    trained.schedule = schedules.Cosine()
    with pytest.raises(InputError, match="the classifier has another noise schedule"):
        proposals.ClassifierGuidance(trained).check(model)
    wrong = reverse_model(priors.Gaussian(jnp.zeros(3), 1.0), jnp.ones((2, 3)), jnp.ones(2), 4)
    with pytest.raises(InputError, match="events of shape"):
        proposals.ClassifierFree(other).check(wrong)
