"""Which operators of the package are recognised in ordinary NumPyro models."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from smcdiff import operators
from smcdiff.priors import Gaussian
from smcdiff.problem import read
from tests.problem.models import assert_residual_matches

EVENT = (6, 6)
RNG = np.random.default_rng(0)
PRIOR = Gaussian(np.zeros(EVENT), 1.0)
IMAGE = jnp.asarray(RNG.normal(size=EVENT), jnp.float32)
BLUR = operators.GaussianBlur(EVENT, 1.0)
MEANS = operators.BlockDownsample(EVENT, 2)
MASK = operators.Mask.random(jax.random.key(1), EVENT, 0.4)
KEEP = RNG.random(EVENT) < 0.5

RECOGNISED = {
    "operator": BLUR,
    "gain and offset": lambda x: 3.0 - 2.0 * BLUR(x),
    "flattened": lambda x: BLUR(x).ravel(),
    "composed": lambda x: MEANS(BLUR(x)),
    "composed by @": MEANS @ BLUR,
    "mask of the package": MASK,
    "two of them, one used": lambda x: (MEANS(x), BLUR(x))[1],
    "under jit": jax.jit(lambda x: 2.0 * x),
    "slice": lambda x: 0.5 * x[1:4, ::2] + 1.0,
    "indices": lambda x: x.ravel()[jnp.array([7, 3, 30])],
    "transposed": lambda x: x.T,
    "zeros elsewhere": lambda x: jnp.where(KEEP, x, 0.0),
}
NOT_RECOGNISED = {
    "sum of two": lambda x: BLUR(x) + x,
    "roll and add": lambda x: x + jnp.roll(x, 1, axis=0),
    "repeated entries": lambda x: x.ravel()[jnp.array([3, 3])],
    "reweighted": lambda x: BLUR(x) * jnp.linspace(1.0, 2.0, 6)[None],
}


def problem(mean, law=lambda mean: dist.Normal(mean, 0.5).to_event()):
    def model():
        numpyro.sample("y", law(mean(numpyro.sample("x", PRIOR))), obs=mean(IMAGE))

    return read(model)


@jax.jit
def operator_of(found):
    return found.linear_observation().operator


@jax.jit
def matrices(operator, found):
    """The matrix of an operator, and the whitened one by the derivative of the model's mean."""
    jacobian = jax.jacobian(lambda x: found.observe_gaussian(x).whitened)(jnp.zeros(EVENT))
    return operator.as_matrix(), -jacobian.reshape(found.num_observations, -1)


@pytest.mark.parametrize("name", RECOGNISED)
def test_recognised(name):
    found = problem(RECOGNISED[name])
    operator = operator_of(found)
    assert found.recognised is not None and operator.structured
    rows = np.asarray(found.recognised.rows)
    matrix, dense = map(np.asarray, matrices(operator, found))
    np.testing.assert_allclose(matrix, dense[rows], atol=1e-4)
    assert_residual_matches(found)


@pytest.mark.parametrize("name", NOT_RECOGNISED)
def test_not_recognised(name):
    found = problem(NOT_RECOGNISED[name])
    assert found.is_linear and found.recognised is None
    operator = operator_of(found)
    np.testing.assert_allclose(*matrices(operator, found), atol=1e-4)
    assert_residual_matches(found)


def test_correlated_noise_is_not_recognised():
    def law(mean):
        return dist.MultivariateNormal(mean, jnp.eye(36) + 0.5)

    assert problem(lambda x: BLUR(x).ravel(), law).recognised is None


def test_noise_that_differs_keeps_a_mask_structured_and_not_a_blur():
    scale = np.linspace(0.5, 1.0, 36, dtype=np.float32).reshape(EVENT)
    for mean, structured in ((lambda x: x, True), (BLUR, False)):
        found = problem(mean, lambda mean: dist.Normal(mean, scale).to_event())
        assert found.recognised is not None
        assert operator_of(found).structured == structured
        assert_residual_matches(found)


def test_a_masked_blur():
    """Masked rows see nothing; the others are those of mask after blur."""

    def model():
        mean = BLUR(numpyro.sample("x", PRIOR))
        with handlers.mask(mask=KEEP):
            numpyro.sample("y", dist.Normal(mean, 0.5), obs=jnp.where(KEEP, BLUR(IMAGE), jnp.nan))

    found = read(model)
    assert_residual_matches(found)
    assert operator_of(found).shape == ((36,), EVENT)


def test_exact_observations_of_a_known_operator_are_checked():
    """Rows that see nothing of x too, which the operator leaves out."""

    def model(y):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Delta(jnp.where(KEEP, x, 0.0)).to_event(), obs=y)

    y = jnp.where(KEEP, IMAGE, 0.0)
    assert read(model, (y,)).recognised is not None
    with pytest.raises(ValueError, match="no 'x' satisfies this exact observation"):
        read(model, (y + 1e-3 * ~KEEP,))
