"""Problems with unknown parameters, and their exact posteriors on a grid of the parameters.

Given the parameters all of them are linear-Gaussian, so that for each point of the grid the
evidence and the moments of x are known in closed form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats
from scipy.special import logsumexp

from smcdiff import priors

SIZE = 6
_rng = np.random.default_rng(0)
MATRIX = _rng.normal(size=(4, SIZE))
PLACES = np.arange(SIZE)

PRIORS = {
    "Gaussian": (np.ones(1), np.zeros((1, SIZE)), 1.0),
    "mixture": (np.array([0.4, 0.6]), np.stack([-np.ones(SIZE), 1.5 * np.cos(PLACES)]), 0.3),
}


def prior(name: str) -> priors.Prior:
    """The diffusion prior."""
    weights, means, variance = PRIORS[name]
    if len(weights) == 1:
        return priors.Gaussian(jnp.asarray(means[0]), variance)
    return priors.GaussianMixture(jnp.asarray(weights), jnp.asarray(means), variance)


def blur(width, xp=jnp):
    """A Gaussian blur of the signal, its rows summing to 1."""
    kernel = xp.exp(-0.5 * ((PLACES[:, None] - PLACES[None, :]) / width) ** 2)
    return kernel / xp.sum(kernel, axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A linear-Gaussian observation with unknown parameters.

    Attributes:
        unknown: each parameter's prior, and the grid that covers it.
        mean: matrix and offset of the mean of y, from the parameters, for NumPy or jax.numpy.
        noise: its standard deviation.
    """

    unknown: dict[str, tuple[dist.Distribution, np.ndarray]]
    mean: Callable
    noise: Callable

    def model(self, prior_name: str) -> Callable:
        """The NumPyro model."""
        law = prior(prior_name)

        def model(y=None):
            x = numpyro.sample("x", law)
            values = {name: numpyro.sample(name, own) for name, (own, _) in self.unknown.items()}
            matrix, offset = self.mean(values, jnp)
            mean = jnp.asarray(matrix) @ x + offset
            numpyro.sample("y", dist.Normal(mean, self.noise(values)).to_event(1), obs=y)

        return model

    def exact(self, prior_name: str, y: np.ndarray) -> tuple[float, dict, dict]:
        """Log evidence, and means and standard deviations of the parameters and of x[0]."""
        weights, means, variance = PRIORS[prior_name]
        grids = np.meshgrid(*(grid for _, grid in self.unknown.values()), indexing="ij")
        points = {n: g.ravel() for n, g in zip(self.unknown, grids, strict=True)}
        cell = np.prod([grid[1] - grid[0] for _, grid in self.unknown.values()])
        prior = sum(np.asarray(own.log_prob(points[n])) for n, (own, _) in self.unknown.items())
        logs, firsts, seconds = [], [], []
        for index in range(grids[0].size):
            own = {name: values[index] for name, values in points.items()}
            matrix, offset = self.mean(own, np)
            matrix, noise = np.asarray(matrix, float), float(self.noise(own))
            covariance = variance * matrix @ matrix.T + noise**2 * np.eye(len(y))
            gain = np.linalg.solve(covariance, variance * matrix[:, 0])
            left = variance - variance * gain @ matrix[:, 0]
            for weight, mean in zip(weights, means, strict=True):
                centre = matrix @ mean + offset
                log = stats.multivariate_normal.logpdf(y, centre, covariance)
                logs.append(np.log(weight) + log + prior[index])
                firsts.append(mean[0] + gain @ (y - centre))
                seconds.append(left + firsts[-1] ** 2)
        logs = np.array(logs)
        log_evidence = logsumexp(logs)
        shares = np.exp(logs - log_evidence)
        first = shares @ np.array(firsts)
        averages = {"x[0]": first}
        spreads = {"x[0]": np.sqrt(shares @ np.array(seconds) - first**2)}
        of_points = shares.reshape(-1, len(weights)).sum(axis=1)
        for name, values in points.items():
            averages[name] = of_points @ values
            spreads[name] = np.sqrt(of_points @ values**2 - averages[name] ** 2)
        return float(log_evidence + np.log(cell)), averages, spreads


def _middles(low: float, high: float, count: int) -> np.ndarray:
    return low + (high - low) * (np.arange(count) + 0.5) / count


PROBLEMS = {
    "noise": Problem(
        {"noise": (dist.HalfNormal(1.0), _middles(0.0, 5.0, 1000))},
        lambda values, xp: (MATRIX, 0.0),
        lambda values: values["noise"],
    ),
    "blur width": Problem(
        {"width": (dist.Uniform(0.3, 3.0), _middles(0.3, 3.0, 540))},
        lambda values, xp: (blur(values["width"], xp), 0.0),
        lambda values: 0.2,
    ),
    "gain and offset": Problem(
        {
            "gain": (dist.Normal(1.0, 0.5), _middles(-1.5, 3.5, 100)),
            "offset": (dist.Normal(0.0, 1.0), _middles(-5.0, 5.0, 100)),
        },
        lambda values, xp: (values["gain"] * MATRIX, values["offset"]),
        lambda values: 0.3,
    ),
}
