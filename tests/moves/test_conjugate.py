"""Parameters drawn given all else: against the densities that they are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from smcdiff import priors
from smcdiff.moves._conjugate import Coefficients, NoiseScale, conjugate, redraw
from smcdiff.problem import read

PRIOR = priors.Gaussian(jnp.zeros(3), 1.0)
MATRIX = jnp.array([[1.0, 0.5, -0.3], [0.0, 1.0, 0.8], [0.2, 0.2, 1.0], [1.0, 1.0, 0.0]])
Y, X = jnp.array([0.7, -0.6, 1.0, 2.0]), jnp.array([0.4, -0.2, 0.3])


def noisy(prior, scale):
    def model(y=None):
        x = numpyro.sample("x", PRIOR)
        value = numpyro.sample("v", prior)
        numpyro.sample("y", dist.Normal(MATRIX @ x, scale(value)).to_event(1), obs=y)

    return model


NOISES = {
    "variance": (dist.InverseGamma(3.0, 0.5), jnp.sqrt, 0.5),
    "precision": (dist.Gamma(2.0, 1.0), lambda v: v**-0.5, -0.5),
    "half-Cauchy": (dist.HalfCauchy(0.5), lambda v: v, 1.0),
}


def chain(problem, widened, count=4000):
    """Draws of a Gibbs chain that has nothing but the conjugate draws."""
    blocks = conjugate(problem)
    extra = None if widened is None else lambda problem: widened / noise_variance(problem)

    def step(values, key):
        values = redraw(blocks, key, problem.at(values), X, extra).parameters.values
        return values, problem.at(values).trace(X)

    def kept(values, key):
        values, found = step(values, key)
        names = problem.parameters.names
        return values, {name: found[name]["value"] for name in names}

    keys = jax.random.split(jax.random.key(0), count + 100)
    _, draws = jax.jit(lambda v: jax.lax.scan(kept, v, keys))(problem.parameters.values)
    return {name: np.asarray(values[100:], np.float64) for name, values in draws.items()}


def noise_variance(problem):
    """Of the one observed site, whose noise is that of every entry."""
    site = problem.trace()["y"]
    return site["fn"].base_dist.scale ** 2


@pytest.mark.parametrize("widened", [None, jnp.array([0.5, 0.1, 2.0, 0.0])], ids=["end", "before"])
@pytest.mark.parametrize("kind", NOISES)
def test_a_scale_of_the_noise(kind, widened):
    """Against quadrature of the prior times the likelihood with widened variances."""
    prior, scale, power = NOISES[kind]
    problem = read(noisy(prior, scale), (), {"y": Y})
    assert conjugate(problem) == (NoiseScale("v", power=power),)
    draws = np.log(chain(problem, widened)["v"])
    grid = np.linspace(-8.0, 8.0, 8001)
    value = np.exp(grid)
    variances = np.asarray(scale(jnp.asarray(value)))[:, None] ** 2
    variances = variances + (0.0 if widened is None else np.asarray(widened)[None])
    misfit = np.asarray(Y - MATRIX @ X)
    terms = -0.5 * np.sum(misfit**2 / variances + np.log(variances), axis=1)
    log_density = terms + np.asarray(prior.log_prob(jnp.asarray(value))) + grid
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = np.sum(weights * grid)
    deviation = np.sqrt(np.sum(weights * (grid - mean) ** 2))
    # 4,000 draws of a chain whose autocorrelation, from runs of 40, is part of the error.
    error = np.std(draws.reshape(40, -1).mean(axis=1), ddof=1) / np.sqrt(40)
    assert abs(draws.mean() - mean) < 3.5 * error < 0.15 * deviation
    np.testing.assert_allclose(draws.std(), deviation, rtol=0.1)


def regression(y=None):
    x = numpyro.sample("x", PRIOR)
    slope = numpyro.sample("slope", dist.Normal(jnp.zeros(2), 2.0).to_event(1))
    gain = numpyro.sample("gain", dist.Normal(1.0, 0.5))
    places = jnp.stack([jnp.ones(4), jnp.arange(4.0)], axis=1)
    mean = gain * (MATRIX @ x) + places @ slope
    numpyro.sample("y", dist.Normal(mean, 0.4).to_event(1), obs=y)


def test_coefficients_at_the_end():
    """The two sites are one Gaussian given x, whose moments linear algebra gives."""
    problem = read(regression, (), {"y": Y})
    assert conjugate(problem) == (Coefficients("slope"), Coefficients("gain", separable=False))
    draws = chain(problem, None)
    columns = np.stack([np.ones(4), np.arange(4.0), np.asarray(MATRIX @ X)], axis=1)
    prior = np.diag([0.25, 0.25, 4.0])
    covariance = np.linalg.inv(columns.T @ columns / 0.16 + prior)
    mean = covariance @ (columns.T @ np.asarray(Y) / 0.16 + prior @ np.array([0.0, 0.0, 1.0]))
    found = np.column_stack([draws["slope"], draws["gain"]])
    blocks = found.reshape(40, -1, 3).mean(axis=1)
    error = blocks.std(axis=0, ddof=1) / np.sqrt(40)
    assert np.all(np.abs(found.mean(axis=0) - mean) < 3.5 * error)
    np.testing.assert_allclose(found.std(axis=0), np.sqrt(np.diag(covariance)), rtol=0.15)


def test_coefficients_before_the_end():
    """The gain, by which the operator is multiplied, stays; the others are drawn given it."""
    widened = jnp.array([0.5, 0.1, 2.0, 0.3])
    problem = read(regression, (), {"y": Y})
    draws = chain(problem, widened)
    assert np.ptp(draws["gain"]) == 0.0
    places = np.stack([np.ones(4), np.arange(4.0)], axis=1)
    precision = 1.0 / (0.16 + np.asarray(widened))
    covariance = np.linalg.inv(places.T @ (precision[:, None] * places) + 0.25 * np.eye(2))
    target = np.asarray(Y) - draws["gain"][0] * np.asarray(MATRIX @ X)
    mean = covariance @ (places.T @ (precision * target))
    blocks = draws["slope"].reshape(40, -1, 2).mean(axis=1)
    error = blocks.std(axis=0, ddof=1) / np.sqrt(40)
    assert np.all(np.abs(draws["slope"].mean(axis=0) - mean) < 3.5 * error)
    np.testing.assert_allclose(draws["slope"].std(axis=0), np.sqrt(np.diag(covariance)), rtol=0.15)


def test_masks_scales_and_several_noises():
    """Entries count as often as they do in the likelihood: against its own second derivative."""

    def model(y=None, z=None):
        x = numpyro.sample("x", PRIOR)
        v = numpyro.sample("v", dist.InverseGamma(jnp.full(2, 3.0), 0.5).to_event(1))
        with handlers.mask(mask=jnp.array([True, False, True])), handlers.scale(scale=2.0):
            numpyro.sample("y", dist.Normal(x, jnp.sqrt(v[0])), obs=y)
        numpyro.sample("z", dist.Normal(x[:2], 3.0 * jnp.sqrt(v[1])).to_event(1), obs=z)

    y, z = jnp.array([1.0, 9.0, -1.0]), jnp.array([2.0, 1.0])
    problem = read(model, (), {"y": y, "z": z})
    assert conjugate(problem) == (NoiseScale("v"),)
    draws = 1.0 / chain(problem, None)["v"]
    squares = np.array(
        [2.0 * np.sum((y - X)[jnp.array([0, 2])] ** 2), np.sum((z - X[:2]) ** 2) / 9]
    )
    shape, rate = 3.0 + 0.5 * np.array([4.0, 2.0]), 0.5 + 0.5 * squares
    # Independent draws of a gamma law: 4,000 of them.
    np.testing.assert_allclose(draws.mean(axis=0), shape / rate, rtol=3.5 / np.sqrt(4000 * 4))
    np.testing.assert_allclose(draws.std(axis=0), np.sqrt(shape) / rate, rtol=0.08)


def not_a_scale(y=None):
    x, v = numpyro.sample("x", PRIOR), numpyro.sample("v", dist.InverseGamma(3.0, 0.5))
    numpyro.sample("y", dist.Normal(MATRIX @ x, jnp.sqrt(v) + 0.1).to_event(1), obs=y)


def also_in_the_mean(y=None):
    x, v = numpyro.sample("x", PRIOR), numpyro.sample("v", dist.InverseGamma(3.0, 0.5))
    numpyro.sample("y", dist.Normal(MATRIX @ x + v, jnp.sqrt(v)).to_event(1), obs=y)


def with_children(y=None):
    x, v = numpyro.sample("x", PRIOR), numpyro.sample("v", dist.HalfCauchy(1.0))
    w = numpyro.sample("w", dist.HalfNormal(v))
    numpyro.sample("y", dist.Normal(MATRIX @ x, v + w).to_event(1), obs=y)


def curved(y=None):
    x, c = numpyro.sample("x", PRIOR), numpyro.sample("c", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(MATRIX @ x + c**2, 0.5).to_event(1), obs=y)


def of_the_noise(y=None):
    x, c = numpyro.sample("x", PRIOR), numpyro.sample("c", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(MATRIX @ x, jnp.exp(c)).to_event(1), obs=y)


def heavy_tails(y=None):
    x, v = numpyro.sample("x", PRIOR), numpyro.sample("v", dist.HalfCauchy(1.0))
    numpyro.sample("y", dist.StudentT(4.0, MATRIX @ x, v).to_event(1), obs=y)


@pytest.mark.parametrize(
    "model", [not_a_scale, also_in_the_mean, with_children, curved, of_the_noise, heavy_tails]
)
def test_what_is_not_conjugate(model):
    assert conjugate(read(model, (), {"y": Y})) == ()
