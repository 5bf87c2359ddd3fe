"""Random nonlinear problems in 1 to 8 dimensions: priors, functions and noises of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from smcdiff import priors


class Case(NamedTuple):
    """One problem; ``law(x)`` is the distribution of y."""

    name: str
    prior: priors.Prior
    law: Callable
    y: jax.Array


FUNCTIONS = {
    "clip": lambda x, z: jnp.clip(z, -0.5, 0.5),
    "tanh": lambda x, z: jnp.tanh(3 * z),
    "square": lambda x, z: z**2,
    "absolute": lambda x, z: jnp.abs(z),
    "exponential": lambda x, z: jnp.exp(z),
    "sine": lambda x, z: jnp.sin(3 * z),
    "cube": lambda x, z: z**3,
    "relu": lambda x, z: jax.nn.relu(z),
    "product": lambda x, z: z * x[0],
    "step": lambda x, z: jax.nn.sigmoid(8 * z),
    "norm": lambda x, z: jnp.sqrt(jnp.sum(x**2) + 1e-6)[None],
    "largest": lambda x, z: jnp.max(x, keepdims=True),
    "rounded": lambda x, z: 0.5 * jnp.round(2 * z),
}
NOISES = {
    "Normal": lambda mean, scale: dist.Normal(mean, scale),
    "Student t": lambda mean, scale: dist.StudentT(3.0, mean, scale),
    "Laplace": lambda mean, scale: dist.Laplace(mean, scale),
    "Poisson": lambda mean, scale: dist.Poisson(jnp.exp(jnp.clip(mean, -3.0, 4.0))),
    "one bit": lambda mean, scale: dist.Bernoulli(logits=mean / scale),
}


def _prior(random: np.random.Generator, size: int) -> tuple[str, priors.Prior]:
    kind = random.choice(["isotropic", "correlated", "mixture"])
    if kind == "isotropic":
        return kind, priors.Gaussian(np.float32(0.5 * random.normal(size=size)), 1.0)
    if kind == "correlated":
        square = random.normal(size=(size, size))
        covariance = square @ square.T / size + 0.1 * np.eye(size)
        return kind, priors.Gaussian(
            np.float32(0.5 * random.normal(size=size)), np.float32(covariance)
        )
    number = int(random.integers(2, 5))
    return kind, priors.GaussianMixture(
        np.float32(random.dirichlet(np.ones(number))),
        np.float32(2.0 * random.normal(size=(number, size))),
        np.float32(random.uniform(0.05, 0.5, size=number)),
    )


def make(seed: int) -> Case:
    """The problem of a seed; y is simulated."""
    random = np.random.default_rng(seed)
    size = int(random.choice([1, 2, 3, 4, 6, 8]))
    kind, prior = _prior(random, size)
    rows = int(random.integers(1, size + 2))
    matrix = jnp.asarray(random.normal(size=(rows, size)) / np.sqrt(size), jnp.float32)
    function, noise = (str(random.choice(list(table))) for table in (FUNCTIONS, NOISES))
    scale = float(random.choice([0.03, 0.1, 0.3]))

    def law(x):
        return NOISES[noise](FUNCTIONS[function](x, matrix @ x), scale).to_event(1)

    key_x, key_y = jax.random.split(jax.random.key(seed))
    y = law(prior.sample(key_x)).sample(key_y)
    about = f"{kind}, d = {size}; {len(y)} {function}, {noise}"
    return Case(f"{about} {scale}" if noise != "Poisson" else about, prior, law, y)
