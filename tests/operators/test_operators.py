"""Adjoints, dense matrices, jit, vmap and grad of every operator; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import operators
from smcdiff.errors import InputError
from smcdiff.exact import dense_matrix

MASK = np.zeros((6, 4, 1), bool)
MASK[::2, 1:] = True
OPERATORS = {
    "dense": operators.Dense(jax.random.normal(jax.random.key(0), (3, 5))),
    "mask": operators.Mask.of(MASK),
    "blur": operators.GaussianBlur((6, 4, 1), 1.5),
    "blur-2d": operators.GaussianBlur((6, 4), 0.7),
    "downsample": operators.BlockDownsample((6, 4, 1), 2),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_adjoint_and_matrix(operator):
    keys = jax.random.split(jax.random.key(1), 2)
    x = jax.random.normal(keys[0], operator.in_shape)
    y = jax.random.normal(keys[1], operator.out_shape)
    left, right = jnp.vdot(operator(x), y), jnp.vdot(x, operator.adjoint(y))
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
    matrix = dense_matrix(operator, operator.in_shape)
    np.testing.assert_allclose(matrix @ x.ravel(), operator(x).ravel(), rtol=1e-5, atol=1e-6)
    assert operator.shape == (operator.out_shape, operator.in_shape)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_jit_vmap_grad(operator):
    x = jax.random.normal(jax.random.key(2), (3, *operator.in_shape))
    mapped = jax.jit(lambda operator, x: jax.vmap(operator)(x))(operator, x)
    np.testing.assert_allclose(mapped[1], operator(x[1]), rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: 0.5 * jnp.sum(operator(x) ** 2))(x[0])
    np.testing.assert_allclose(gradient, operator.adjoint(operator(x[0])), rtol=1e-4, atol=1e-5)


def test_blur_preserves_a_constant_inside():
    """Far from the edge the weights sum to one."""
    out = operators.GaussianBlur((21, 21), 1.0)(jnp.ones((21, 21)))
    np.testing.assert_allclose(out[10, 10], 1.0, rtol=1e-5)


BAD = [
    (lambda: operators.Mask.of(np.zeros((2, 2))), "every entry is masked"),
    (lambda: operators.Mask.of(np.array([0.5, 1.0])), "0 or 1"),
    (lambda: operators.Mask.of(np.array([np.nan, 1.0])), "without NaN"),
    (lambda: operators.GaussianBlur((4,), 1.0), "shape is"),
    (lambda: operators.GaussianBlur((4, 4), 0.0), "must be positive"),
    (lambda: operators.BlockDownsample((5, 4), 2), "does not divide"),
    (lambda: operators.Dense(jnp.ones(3)), "must be 2-D"),
    (lambda: OPERATORS["blur"](jnp.ones((4, 4))), "the operator takes"),
    (lambda: OPERATORS["mask"].adjoint(jnp.ones(2)), "adjoint's input"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
