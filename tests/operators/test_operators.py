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
    "bicubic": operators.BicubicDownsample((6, 4, 3), 2),
    "random mask": operators.Mask.random(jax.random.key(3), (6, 4, 3), 0.4),
    "channel mask": operators.Mask.channels((6, 4, 3), [1, 0, 1]),
    "convolution": operators.Convolution((6, 4, 3), jnp.arange(15.0).reshape(5, 3)),
    "circular": operators.Convolution((6, 4), jnp.arange(9.0).reshape(3, 3), circular=True),
    "motion": operators.MotionBlur((6, 5, 1), 2.0, 30.0),
    "colours": operators.ColourMix(jax.random.normal(jax.random.key(5), (2, 3)), (6, 4, 3)),
    "grey": operators.ColourMix.grey((6, 4, 3)),
    "fourier": operators.MaskedFourier.of(np.arange(24).reshape(6, 4) % 3 == 0, (6, 4, 1)),
    "reshape": operators.Reshape((6, 4), (8, 3)),
    "composition": operators.Mask.of(np.arange(6).reshape(3, 2) > 2)
    @ operators.BlockDownsample((6, 4), 2),
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


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_svd(operator):
    """A = U diag(s) V', with orthonormal U and V, against NumPy's singular values."""
    svd = operator.svd()
    matrix = np.asarray(operator.as_matrix())
    size = max(1.0, np.abs(matrix).max())
    right, left = np.asarray(svd.right.as_matrix()), np.asarray(svd.left.as_matrix())
    np.testing.assert_allclose(left * svd.values @ right, matrix, atol=1e-5 * size)
    identity = np.eye(len(svd.values))
    np.testing.assert_allclose(right @ right.T, identity, atol=1e-5)
    np.testing.assert_allclose(left.T @ left, identity, atol=1e-5)
    expected = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(svd.values, expected[: len(identity)], atol=1e-5 * size)
    y = operator(jax.random.normal(jax.random.key(8), operator.in_shape))
    found = svd.pseudo_inverse(y)
    np.testing.assert_allclose(found.ravel(), np.linalg.pinv(matrix, 1e-6) @ y.ravel(), atol=5e-3)


def test_convolution_agrees_with_scipy():
    from scipy import signal

    image = np.asarray(jax.random.normal(jax.random.key(0), (9, 8)))
    kernel = np.arange(15.0).reshape(5, 3)
    zero = operators.Convolution((9, 8), kernel)(image)
    np.testing.assert_allclose(zero, signal.convolve2d(image, kernel, "same"), rtol=1e-4, atol=1e-4)
    wrapped = operators.Convolution((9, 8), kernel, circular=True)(image)
    expected = signal.convolve2d(image, kernel, "same", "wrap")
    np.testing.assert_allclose(wrapped, expected, rtol=1e-4, atol=1e-4)


def test_bicubic_agrees_with_pillow():
    """Inside; at the borders Pillow renormalises and we reflect."""
    from PIL import Image

    image = np.asarray(jax.random.normal(jax.random.key(0), (32, 32)))
    small = operators.BicubicDownsample((32, 32), 4)(image)
    expected = Image.fromarray(image).resize((8, 8), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(small[2:-2, 2:-2], np.asarray(expected)[2:-2, 2:-2], atol=1e-4)
    np.testing.assert_allclose(operators.BicubicDownsample((8, 8), 2)(jnp.ones((8, 8))), 1.0)


def test_motion_blur_lies_along_its_line():
    kernel = np.asarray(operators.MotionBlur((15, 15), 6.0, 90.0).kernel)
    np.testing.assert_allclose(kernel.sum(), 1.0, rtol=1e-5)
    assert kernel[:, 3].sum() > 0.99  # upright: all in the middle column
    diagonal = np.asarray(operators.MotionBlur((15, 15), 6.0, 45.0).kernel)
    assert diagonal[1, 5] > 0.01 > diagonal[1, 1]  # up and to the right


def test_fourier_agrees_with_numpy():
    x = np.asarray(jax.random.normal(jax.random.key(0), (6, 5, 2)))
    y = operators.MaskedFourier.of(np.ones((6, 5)), (6, 5, 2))(x)
    expected = np.fft.fft2(x, axes=(0, 1), norm="ortho").reshape(30, 2)
    np.testing.assert_allclose(y, [expected.real, expected.imag], atol=1e-5)


def test_random_mask_hides_whole_pixels():
    mask = operators.Mask.random(jax.random.key(0), (10, 10, 3), 0.25)
    seen = np.zeros((10, 10, 3), bool)
    seen.flat[np.asarray(mask.indices)] = True
    assert seen.sum() == 75 and np.all(seen == seen[..., :1])


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
    (lambda: operators.BlockDownsample((4, 4), 0), "factor is 0"),
    (lambda: operators.BicubicDownsample((5, 4), 2), "does not divide"),
    (lambda: operators.Separable((4, 4), np.eye(3), np.eye(4)), "do not act on images"),
    (lambda: operators.Convolution((4, 4), np.ones((2, 3))), "both odd"),
    (lambda: operators.Convolution((4, 4), np.ones((5, 3))), "larger than the image"),
    (lambda: operators.Convolution((4,), np.ones((3, 3))), "shape is"),
    (lambda: operators.MotionBlur((9, 9), 0.0), "length is 0.0"),
    (lambda: operators.MotionBlur((9, 9), np.inf), "fit into the image"),
    (lambda: operators.MotionBlur((9, 9), 3.0, np.nan), "angle is nan"),
    (lambda: operators.Convolution((4, 4), np.full((3, 3), np.nan)), "NaN or infinite values"),
    (lambda: operators.GaussianBlur((4, 4), np.inf), "width is inf"),
    (lambda: operators.ColourMix(jnp.ones((1, 2)), (4, 4, 3)), "do not act on the channels"),
    (lambda: operators.ColourMix.grey((4, 4, 1)), "no colours"),
    (lambda: operators.MaskedFourier.of(np.zeros((4, 4)), (4, 4)), "1 somewhere"),
    (lambda: operators.MaskedFourier.of(np.ones((4, 3)), (4, 4)), "it must be"),
    (lambda: operators.Mask.random(jax.random.key(0), (4, 4), 0.0), "fraction is 0.0"),
    (lambda: operators.Mask.channels((4, 4, 3), [1, 0]), "2 channels given"),
    (lambda: operators.Reshape((4, 4), (5, 3)), "other sizes"),
    (lambda: OPERATORS["mask"] @ OPERATORS["blur-2d"], "composition: GaussianBlur returns"),
    (lambda: OPERATORS["mask"].adjoint(jnp.ones(2)), "adjoint's input"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_complex_images_are_refused():
    operator = operators.MaskedFourier.of(np.ones((4, 4), bool), (4, 4, 1))
    with pytest.raises(InputError, match="the input is complex"):
        operator(jnp.ones((4, 4, 1)) + 1j)
    with pytest.raises(InputError, match="the input is complex"):
        operator.adjoint(jnp.ones(operator.out_shape) + 1j)
