"""Priors, operators and the reverse model that tests of several files share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from smcdiff import kernels, priors, proposals, schedules
from smcdiff.diffusion.denoising_error import DenoisingError
from smcdiff.diffusion.laws import Conditioned
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel, read


def _covariance(seed):
    square = jax.random.normal(jax.random.key(seed), (3, 3))
    return square @ square.T + 0.2 * jnp.eye(3)


GAUSSIAN = priors.Gaussian(jnp.array([1.0, -1.0, 0.0]), _covariance(1))
MIXTURE = priors.GaussianMixture(
    jnp.array([0.3, 0.7]),
    jnp.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]]),
    jnp.stack([_covariance(1), _covariance(2)]),
)
PRIORS = {"gaussian": GAUSSIAN, "mixture": MIXTURE}
DENSE = jnp.array([[1.0, 0.5, -0.3], [0.0, 1.0, 0.8]])
# Single entries, with gains, so that the density of y is not that of the entries.
MASK = jnp.array([[0.5, 0.0, 0.0], [0.0, 0.0, 0.8]])
Y, NOISE = jnp.array([0.7, -0.6]), jnp.array([0.4, 0.3])


def isotropic(mean, variance):
    """N(mean, v I) as a denoiser, with its error: for it `kernels.AnalyticDPM` is exact."""
    truth = priors.Gaussian(mean, variance, schedule=schedules.Cosine())
    log_snr = jnp.linspace(-12.0, 12.0, 400)
    error = DenoisingError(log_snr, 1.0 / (1.0 / variance + jnp.exp(log_snr)))
    prior = priors.DiffusionPrior(
        truth.denoise, truth.schedule, mean.shape, data_variance=variance, denoising_error=error
    )
    return prior, truth


def model(prior, matrix, noise, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(matrix @ x, noise).to_event(1), obs=y)


def exact_model(prior, matrix, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Delta(matrix @ x).to_event(), obs=y)


def noisy_log_likelihood(prior, matrix, noise):
    """Log p(y given x_t) for the model below, exact: what a perfect classifier would know."""

    def log_prob(x, t):
        given = prior.reverse(x, prior.schedule.level(t), Level.clean())
        law = Conditioned.of(given, matrix, Y - matrix @ given.mean, jnp.diag(noise**2))
        return jax.nn.logsumexp(law.log_weights)

    return log_prob


def conditional_prior(prior, matrix, noise):
    """The exact denoiser of x_0 given x_t and y, by Tweedie's formula."""
    score = jax.grad(noisy_log_likelihood(prior, matrix, noise))

    def denoise(x, t):
        level = prior.schedule.level(t)
        return prior.denoise(x, t) + level.sigma**2 / level.alpha * score(x, t)

    return priors.DiffusionPrior(denoise, prior.schedule, prior.event_shape)


class ExactNetwork(NamedTuple):
    """A conditional network that is right, for the observation ``Y`` alone."""

    prior: priors.DiffusionPrior

    def given(self, y):
        return self.prior


def conditional_sampler(name, prior, matrix, noise):
    """A sampler of `proposals.CONDITIONAL_SAMPLERS` with the exact conditional model."""
    if name == "ClassifierGuidance":
        return proposals.ClassifierGuidance(noisy_log_likelihood(prior, matrix, noise))
    if name == "ClassifierFree":
        return proposals.ClassifierFree(conditional_prior(prior, matrix, noise))
    if name == "Amortized":
        return proposals.Amortized(ExactNetwork(conditional_prior(prior, matrix, noise)))
    raise KeyError(f"{name} is registered, but no exact conditional model is known for it")


def reverse_model(prior, matrix, noise, num_steps, y=Y):
    """Exact kernels; ``noise`` None is an exact observation."""
    if noise is None:
        problem = read(exact_model, (prior, matrix), {"y": y})
    else:
        problem = read(model, (prior, matrix, noise), {"y": y})
    levels = schedules.UniformLogSNR()(prior.schedule, num_steps)
    return ReverseModel(problem, kernels.Exact(), levels)
