"""Kinds of likelihood, each as one NumPyro model of z = A x under a lopsided mixture prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr
from scipy.special import expit
from scipy.stats import multivariate_normal

from smcdiff import priors


class Kind(NamedTuple):
    """What is observed of x.

    Attributes:
        observe: ``observe(x, z, data)`` declares the observed sites or factors.
        simulate: ``simulate(key, x, z)`` draws the data.
        rows: number of rows of A over the dimension of x.
    """

    observe: Callable
    simulate: Callable
    rows: float = 1.0


class Problem(NamedTuple):
    """A model and its data.

    Attributes:
        model: of ``data``, with the diffusion site ``x``.
        prior: of x.
        data: simulated.
    """

    model: Callable
    prior: LopsidedPrior
    data: dict[str, jax.Array]


class LopsidedPrior:
    """Two correlated Gaussians of weights 0.75 and 0.25, with numbers of its own beside smcdiff's.

    Attributes:
        weights: (2,)
        means: (2, d)
        covariances: (2, d, d)
    """

    def __init__(self, size: int):
        """Of dimension ``size``."""
        index = np.arange(size)
        # As far apart in any dimension, so that the data seldom decide the mode outright.
        signs, lags = (-1.0) ** index * np.sqrt(2 / size), np.abs(index[:, None] - index)
        self.weights = np.array([0.75, 0.25])
        self.means = np.stack([-0.6 * signs, 1.0 * signs])
        self.covariances = np.stack([0.5 * 0.7**lags, 0.25 * (-0.4) ** lags])

    @property
    def diffusion(self) -> priors.GaussianMixture:
        """For the model."""
        return priors.GaussianMixture(self.weights, self.means, self.covariances)

    def draw(self, random: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(number, d) draws, and the component (0 or 1) of each."""
        component = random.random(number) < self.weights[1]
        normal = random.standard_normal((number, self.means.shape[1]), np.float32)
        factors = np.linalg.cholesky(self.covariances).astype(np.float32)
        first, second = (
            m.astype(np.float32) + normal @ f.T for m, f in zip(self.means, factors, strict=True)
        )
        return np.where(component[:, None], second, first), component

    def second_mode(self, x: np.ndarray) -> np.ndarray:
        """The probability of the second component given x, of shape (..., d)."""
        first, second = (
            np.log(weight) + multivariate_normal(mean, covariance).logpdf(x)
            for weight, mean, covariance in zip(
                self.weights, self.means, self.covariances, strict=True
            )
        )
        return expit(second - first)


def _declared(law: Callable, rows: float = 1.0) -> Kind:
    """One site ``y`` with the law ``law(z)`` of independent entries, from which data are drawn."""
    return Kind(
        lambda x, z, data: numpyro.sample("y", law(z).to_event(1), obs=data["y"]),
        lambda key, x, z: {"y": law(z).sample(key)},
        rows,
    )


def _correlated(z):
    index = jnp.arange(len(z))
    lags = jnp.abs(index[:, None] - index[None])
    return dist.MultivariateNormal(z, 0.25 * 0.8**lags)


CORRELATED = Kind(
    lambda x, z, data: numpyro.sample("y", _correlated(z), obs=data["y"]),
    lambda key, x, z: {"y": _correlated(z).sample(key)},
)

LIMIT = 0.4
"""Where a detector saturates."""


def _saturated(x, z, data):
    base = dist.Normal(z, 0.3)
    law = dist.RightCensoredDistribution(base, censored=data["saturated"])
    numpyro.sample("y", law.to_event(1), obs=data["y"])


def _saturate(key, x, z):
    y = dist.Normal(z, 0.3).sample(key)
    return {"y": jnp.minimum(y, LIMIT), "saturated": jnp.where(y >= LIMIT, 1, 0)}


STEP = 0.5
"""Of a quantiser."""


def log_normal_between(low: jax.Array, high: jax.Array) -> jax.Array:
    """Log probability that a standard normal lies in between; exact in both tails."""
    flip = low > 0.0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    below = log_ndtr(high)
    return below + jnp.log1p(-jnp.exp(log_ndtr(low) - below))


def _quantised(x, z, data):
    low, high = ((data["y"] + side * STEP / 2 - z) / 0.2 for side in (-1.0, 1.0))
    numpyro.factor("y", log_normal_between(low, high))


def _quantise(key, x, z):
    return {"y": STEP * jnp.round(dist.Normal(z, 0.2).sample(key) / STEP)}


def _outliers(z):
    noises = dist.Normal(z[:, None], jnp.array([[0.2, 3.0]]))
    return dist.MixtureSameFamily(dist.Categorical(jnp.array([0.8, 0.2])), noises)


def _missing(x, z, data):
    with numpyro.handlers.mask(mask=data["seen"]):
        numpyro.sample("y", dist.StudentT(4.0, z, 0.3), obs=data["y"])


def _lose(key, x, z):
    seen = jnp.arange(len(z)) % 3 != 2
    return {"y": jnp.where(seen, dist.StudentT(4.0, z, 0.3).sample(key), 0.0), "seen": seen}


def _two_sites(x, z, data):
    half = len(z) // 2
    numpyro.sample("counts", dist.Poisson(jnp.exp(1.0 + z[:half])).to_event(1), obs=data["counts"])
    numpyro.sample("reading", dist.Normal(z[half:], 0.3).to_event(1), obs=data["reading"])


def _simulate_two(key, x, z):
    half, keys = len(z) // 2, jax.random.split(key)
    counts = dist.Poisson(jnp.exp(1.0 + z[:half])).sample(keys[0])
    return {"counts": counts, "reading": dist.Normal(z[half:], 0.3).sample(keys[1])}


def _staircase(z: np.ndarray) -> np.ndarray:
    """A simulator in NumPy, without a derivative."""
    z = np.asarray(z)
    steps = np.floor(2.0 * z) / 2.0
    return (steps + 0.3 * np.sort(np.sin(3.0 * z), axis=-1)).astype(np.float32)


def _simulator(z):
    shape = jax.ShapeDtypeStruct(z.shape, jnp.float32)
    return dist.Normal(jax.pure_callback(_staircase, shape, z, vmap_method="expand_dims"), 0.4)


KINDS = {
    "Poisson": _declared(lambda z: dist.Poisson(jnp.exp(1.0 + z))),
    "negative binomial": _declared(lambda z: dist.NegativeBinomial2(jnp.exp(1.0 + z), 5.0)),
    "Student t": _declared(lambda z: dist.StudentT(3.0, z, 0.3)),
    "Laplace": _declared(lambda z: dist.Laplace(z, 0.3)),
    "Cauchy": _declared(lambda z: dist.Cauchy(z, 0.2)),
    "correlated Gaussian": CORRELATED,
    "heteroscedastic": _declared(lambda z: dist.Normal(z, 0.1 + 0.4 * jax.nn.softplus(z))),
    "multiplicative (Gamma)": _declared(lambda z: dist.Gamma(8.0, 8.0 * jnp.exp(-z))),
    "censored": Kind(_saturated, _saturate),
    "truncated": _declared(lambda z: dist.TruncatedNormal(z, 0.5, low=-0.5)),
    "1-bit": _declared(lambda z: dist.Bernoulli(logits=5.0 * z), rows=3.0),
    "quantised": Kind(_quantised, _quantise),
    "phase retrieval": _declared(lambda z: dist.Normal(jnp.abs(z), 0.3), rows=1.5),
    "outliers": _declared(_outliers),
    "missing data": Kind(_missing, _lose, rows=1.5),
    "counts and a Gaussian": Kind(_two_sites, _simulate_two),
    "simulator (callback)": _declared(_simulator),
}


def make(name: str, size: int) -> Problem:
    """The problem of a kind in ``size`` dimensions."""
    kind, prior = KINDS[name], LopsidedPrior(size)
    seed = list(KINDS).index(name)
    random = np.random.default_rng(seed)
    matrix = jnp.float32(random.normal(size=(round(kind.rows * size), size)) / np.sqrt(size))
    x = jnp.asarray(prior.draw(random, 1)[0][0])
    data = kind.simulate(jax.random.key(seed), x, matrix @ x)

    def model(data):
        x = numpyro.sample("x", prior.diffusion)
        kind.observe(x, matrix @ x, data)

    return Problem(model, prior, data)
