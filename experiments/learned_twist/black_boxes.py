"""Models on vectors whose likelihoods JAX cannot differentiate, and one that it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import priors


class Case(NamedTuple):
    """A model and what is observed of it.

    Attributes:
        name: for the table.
        prior: of x.
        law: the law of y given x.
        observations: some y to condition on.
        differentiable: whether the likelihood has a gradient.
    """

    name: str
    prior: priors.GaussianMixture
    law: Callable
    observations: Sequence[np.ndarray]
    differentiable: bool

    def model(self, y=None):
        """The NumPyro model."""
        numpyro.sample("y", self.law(numpyro.sample("x", self.prior)), obs=y)


PLANE = priors.GaussianMixture(
    jnp.array([0.2, 0.5, 0.3]),
    jnp.array([[-2.0, 0.0], [1.0, 1.5], [1.5, -1.5]]),
    jnp.array([0.2, 0.5, 0.3]),
)
_CENTRES = jax.random.normal(jax.random.key(5), (4, 8))
SPACE = priors.GaussianMixture(jnp.array([0.1, 0.2, 0.3, 0.4]), _CENTRES, 0.5)
_ROWS = jax.random.normal(jax.random.key(6), (24, 8)) / 8**0.5


def _rounded(x: np.ndarray) -> np.ndarray:
    """A simulator in NumPy: the radius to a third, and the product of the entries to a half."""
    x = np.asarray(x)
    radius = np.round(3.0 * np.hypot(x[..., 0], x[..., 1])) / 3.0
    product = np.floor(2.0 * x[..., 0] * x[..., 1]) / 2.0
    return np.stack([radius, product], axis=-1).astype(np.float32)


def _simulated(x):
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    mean = jax.pure_callback(_rounded, shape, x, vmap_method="expand_dims")
    return dist.StudentT(4.0, mean, 0.1).to_event(1)


def _signs(x):
    return dist.Bernoulli(jnp.where(_ROWS @ x > 0.0, 0.98, 0.02)).to_event(1)


def _smooth(x):
    return dist.StudentT(4.0, jnp.stack([jnp.hypot(x[0], x[1]), x[0] * x[1]]), 0.1).to_event(1)


def _drawn(prior, law, count: int) -> list[np.ndarray]:
    """Observations that the model draws."""
    x = prior.sample(jax.random.key(7), (count,))
    keys = jax.random.split(jax.random.key(8), count)
    return [np.asarray(law(one).sample(key)) for one, key in zip(x, keys, strict=True)]


def cases(count: int) -> list[Case]:
    """All cases, with so many observations each."""
    rows = (
        ("rounded, in NumPy, d = 2", PLANE, _simulated, False),
        ("24 signs, 2 % wrong, d = 8", SPACE, _signs, False),
        ("the same not rounded, d = 2", PLANE, _smooth, True),
    )
    return [
        Case(name, prior, law, _drawn(prior, law, count), smooth)
        for name, prior, law, smooth in rows
    ]
