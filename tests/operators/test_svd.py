"""Decompositions of all operators and compositions, against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import operators
from smcdiff.errors import InputError
from smcdiff.operators.base import matrix_of
from tests.operators.catalogue import OPERATORS, STRUCTURED


def _normal(shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@jax.jit
def _all_of(operator, x, y):
    """Inside ``jax.jit``, where arrays are traced: structure may not depend on their numbers."""
    svd = operator.svd()
    gradient = jax.grad(lambda x: jnp.vdot(operator(x), y))(x)
    left, right = (matrix_of(part.apply, part.in_shape) for part in (svd.left, svd.right))
    matrix = matrix_of(operator, operator.in_shape)
    return svd.values, matrix, left, right, operator.adjoint(y), gradient


@pytest.mark.parametrize("name", OPERATORS)
def test_decomposition(name):
    """A = U diag(s) V' with orthonormal U and V, against NumPy; vmap, gradient and adjoint of A."""
    operator = OPERATORS[name]
    assert operator.structured == (name in STRUCTURED)
    x, y = (_normal(shape) for shape in (operator.in_shape, operator.out_shape))
    values, matrix, left, right, *transposed = map(np.asarray, _all_of(operator, x, y))
    size = max(1.0, np.abs(matrix).max())
    np.testing.assert_allclose(left * values @ right, matrix, atol=1e-5 * size)
    identity = np.eye(len(values))
    np.testing.assert_allclose(right @ right.T, identity, atol=1e-5)
    np.testing.assert_allclose(left.T @ left, identity, atol=1e-5)
    assert np.all(values >= 0.0)
    expected = np.zeros(min(matrix.shape))
    expected[: len(values)] = np.sort(values)[::-1]
    found = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(expected, found, atol=3e-5 * size)
    gram = matrix @ matrix.T
    if operator.orthogonal_rows:
        np.testing.assert_allclose(gram, np.diag(np.diagonal(gram)), atol=1e-5 * size**2)
    if operator.structure.isometry:
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-5)
    for found in transposed:
        np.testing.assert_allclose(found.ravel(), matrix.T @ y.ravel(), atol=3e-5 * size)


@pytest.mark.parametrize("name", ["fourier", "separable, zero and repeated values"])
def test_pseudo_inverse(name):
    operator = OPERATORS[name]
    y = _normal(operator.out_shape)
    found = jax.jit(lambda operator, y: operator.svd().pseudo_inverse(y))(operator, y)
    matrix = jax.jit(lambda operator: operator.as_matrix())(operator)
    inverse = np.linalg.pinv(np.asarray(matrix), 1e-6)
    np.testing.assert_allclose(found.ravel(), inverse @ np.ravel(y), atol=1e-4)


KNOWN = [
    "mask",
    "fourier",
    "circular",
    "box of blur",
    "mask of fourier of circular",
    "scaled stack",
]


@pytest.mark.parametrize("name", KNOWN)
def test_decomposition_of_known_arrays(name):
    """Inside ``jax.jit``, but not passed into it: what can be seen of the numbers is used."""
    operator = STRUCTURED[name]
    x = _normal(operator.in_shape)

    @jax.jit
    def both(x):
        svd = operator.svd()
        return svd.left(svd.values * svd.right(x)), operator(x)

    np.testing.assert_allclose(*both(x), atol=3e-5)


def test_which_rows_are_orthogonal():
    expected = {"mask", "reshape", "blocks", "grey", "fourier, no pairs", "scaled mask"}
    rest = {"blur", "mix", "circular", "fourier", "dense", "convolution", "scaled blur"}
    assert {name for name in expected | rest if OPERATORS[name].orthogonal_rows} == expected


def test_products_of_kronecker_are_one():
    product = STRUCTURED["blocks of mix of blur"]
    assert isinstance(product, operators.Kronecker)
    assert [matrix.shape for matrix in product.factors] == [(3, 6), (2, 4), (2, 3)]
    alone = operators.Kronecker((None, np.ones((2, 3))), (4, 3))
    assert (operators.Kronecker((None, np.ones((1, 2))), (4, 2)) @ alone).factors[0] is None


def test_a_box_of_a_blur_is_kronecker():
    chosen = STRUCTURED["box of blur"].inner
    assert isinstance(chosen, operators.Kronecker)
    assert [matrix.shape for matrix in chosen.factors] == [(4, 6), (2, 4), (2, 3)]


def test_structure_is_found_in_a_traced_function():
    """Operators are often made inside a model; their numbers must stay known there."""
    rows = np.zeros((4, 4), bool)
    rows[1:3] = True
    found, key = [], jax.random.key(0)

    @jax.jit
    def model(x):
        blur, blocks = operators.GaussianBlur((4, 4), 1.0), operators.BlockDownsample((4, 4), 2)
        fourier = operators.MaskedFourier.of(rows, (4, 4))
        twice = blocks @ operators.Separable((4, 4), 2.0 * np.eye(4), np.eye(4))
        made = [
            operators.Mask.of(rows) @ blur,
            operators.Mask([0, 3], (2, 2)) @ twice,
            operators.Mask([1, 2, 9], fourier.out_shape) @ fourier,
            operators.Stacked([operators.Mask([0], (4, 4)), operators.Mask([0, 1], (4, 4))]),
            operators.Mask.random(key, (2, 2), 0.5) @ blocks,
        ]
        found.extend(operator.structured for operator in made)
        with pytest.raises(InputError, match="listed twice"):
            operators.Mask([1, 1], (4, 4))
        return sum(jnp.sum(operator(x)) for operator in made)

    assert jnp.isfinite(model(jnp.ones((4, 4))))
    assert all(found) and len(found) == 5


def test_a_mask_of_fourier_made_of_traced_arrays_is_dense():
    """What a mask leaves of the coordinates cannot be known there; it is right, but dense."""
    x = _normal((6, 4, 3))

    @jax.jit
    def both(mask, fourier, x):
        chosen = mask @ fourier
        svd = chosen.svd()
        return chosen(x), svd.left(svd.values * svd.right(x)), fourier(x)

    fourier = STRUCTURED["fourier"]
    mask = operators.Mask([0, 7, 30], fourier.out_shape)
    *found, every = both(mask, fourier, x)
    np.testing.assert_allclose(found[0], np.ravel(every)[[0, 7, 30]], atol=1e-5)
    np.testing.assert_allclose(*found, atol=1e-5)


def test_large_operators_without_structure_are_refused():
    shape = (128, 128)
    blurred = operators.Mask.random(jax.random.key(0), shape, 0.5) @ operators.GaussianBlur(
        shape, 2
    )
    motion = operators.MotionBlur(shape, 5.0)
    noise = np.ones(shape) * operators.GaussianBlur(shape, 2.0)
    for operator in (blurred, motion, noise, operators.Stacked([motion, motion])):
        assert not operator.structured
        with pytest.raises(InputError, match="Twisted"):
            operator.svd()
