"""What operators compute, against other libraries; what is differentiated and traced; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import operators
from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.exact import dense_matrix
from smcdiff.operators.structure import Rows, Structure
from tests.operators.catalogue import OPERATORS

NORMAL = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)


@jax.jit
def _applied(operator, x):
    """In one program, where eager costs one an operation."""
    return operator(x)


def test_convolution_agrees_with_scipy():
    from scipy import signal

    image, kernel = NORMAL[:9, :8], np.arange(15.0).reshape(5, 3)
    zero = operators.Convolution((9, 8), kernel)(image)
    np.testing.assert_allclose(zero, signal.convolve2d(image, kernel, "same"), rtol=1e-4, atol=1e-4)
    wrapped = operators.Convolution((9, 8), kernel, circular=True)(image)
    expected = signal.convolve2d(image, kernel, "same", "wrap")
    np.testing.assert_allclose(wrapped, expected, rtol=1e-4, atol=1e-4)


def test_bicubic_agrees_with_pillow():
    """Inside; at the borders Pillow renormalises and we reflect."""
    from PIL import Image

    small = np.asarray(operators.BicubicDownsample((32, 32), 4)(NORMAL))
    expected = Image.fromarray(NORMAL).resize((8, 8), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(small[2:-2, 2:-2], np.asarray(expected)[2:-2, 2:-2], atol=1e-4)
    np.testing.assert_allclose(operators.BicubicDownsample((8, 8), 2)(jnp.ones((8, 8))), 1.0)


def test_motion_blur_lies_along_its_line():
    kernel = np.asarray(operators.MotionBlur((15, 15), 6.0, 90.0).kernel)
    np.testing.assert_allclose(kernel.sum(), 1.0, rtol=1e-5)
    assert kernel[:, 3].sum() > 0.99  # upright: all in the middle column
    diagonal = np.asarray(operators.MotionBlur((15, 15), 6.0, 45.0).kernel)
    assert diagonal[1, 5] > 0.01 > diagonal[1, 1]  # up and to the right


def test_fourier_agrees_with_numpy():
    x = NORMAL[:6, :10].reshape(6, 5, 2)
    y = _applied(operators.MaskedFourier.of(np.ones((6, 5)), (6, 5, 2)), x)
    expected = np.fft.fft2(x, axes=(0, 1), norm="ortho").reshape(30, 2)
    np.testing.assert_allclose(y, [expected.real, expected.imag], atol=1e-5)


def test_random_mask_hides_whole_pixels():
    mask = operators.Mask.random(jax.random.key(0), (10, 10, 3), 0.25)
    seen = np.zeros((10, 10, 3), bool)
    seen.flat[np.asarray(mask.indices)] = True
    assert seen.sum() == 75 and np.all(seen == seen[..., :1])


def test_blur_preserves_a_constant_inside():
    """Far from the edge the weights sum to one."""
    out = np.asarray(operators.GaussianBlur((21, 21), 1.0)(np.ones((21, 21), np.float32)))
    np.testing.assert_allclose(out[10, 10], 1.0, rtol=1e-5)


def test_width_may_be_traced():
    """An unknown width: jit, vmap over widths, and a gradient against differences."""
    x = NORMAL[:6, :4]

    @jax.jit
    def energy(width):
        blur = operators.GaussianBlur((6, 4), width)
        svd = blur.svd()
        return jnp.sum(blur(x) ** 2), jnp.sum(svd.left(svd.values * svd.right(x)) ** 2)

    widths = np.float32([0.6, 1.0, 2.0])
    found = jax.vmap(energy)(widths)
    blurred = [_applied(operators.GaussianBlur((6, 4), float(w)), x) for w in widths]
    expected = [np.sum(np.square(image)) for image in blurred]
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-4)
    slope = jax.grad(lambda width: energy(width)[0])(1.0)
    difference = (energy(1.01)[0] - energy(0.99)[0]) / 0.02
    np.testing.assert_allclose(slope, difference, rtol=1e-2)


def test_operators_are_mapped_over():
    """A batch of operators is one with a batch of arrays."""
    x, widths = NORMAL[:6, :4], np.float32([0.5, 1.5])
    blurs = jax.vmap(lambda width: operators.GaussianBlur((6, 4), width))(widths)
    blurred = np.asarray(jax.jit(jax.vmap(_applied, (0, None)))(blurs, x))
    expected = _applied(operators.GaussianBlur((6, 4), 1.5), x)
    np.testing.assert_allclose(blurred[1], expected, rtol=1e-5)


def test_matrices_of_traced_numbers():
    """A list that holds a traced number is a matrix as well."""

    def total(slope):
        return jnp.sum(operators.Dense([[slope, 0.0], [1.0, slope]])(jnp.array([1.0, 2.0])))

    np.testing.assert_allclose(jax.jit(jax.grad(total))(0.5), 3.0)


class Differences(operators.LinearOperator):
    """An operator of one's own: of neighbours, and then every one ``step``-th of them."""

    step: int = static()

    @property
    def in_shape(self):
        return (6,)

    @property
    def out_shape(self):
        return (len(range(0, 5, self.step)),)

    @property
    def structure(self):
        """Orthogonal rows, of which ``svd`` says more, if they do not overlap."""
        return Structure(Rows.ORTHOGONAL if self.step > 1 else Rows.ANY)

    def apply(self, x):
        return (x[1:] - x[:-1])[:: self.step]

    def svd(self):
        if self.step == 1:
            return super().svd()
        values = jnp.full(self.out_shape, 2.0**0.5)
        return operators.SVD(operators.Reshape(values.shape, values.shape), values, self * 0.5**0.5)


@pytest.mark.parametrize("step", [1, 2])
def test_an_operator_of_ones_own(step):
    """It needs its shapes and ``apply``, and gains by what it says of itself."""
    mine, x = Differences(step), NORMAL[0, :6]
    chosen = 0.5 * (operators.Mask([1, 0], mine.out_shape) @ mine)
    assert chosen.structured == (step == 2)
    np.testing.assert_allclose(_applied(chosen, x), 0.5 * np.diff(x)[[step, 0]], rtol=1e-5)

    @jax.jit
    def decomposed(operator, x):
        svd = operator.svd()
        return svd.left(svd.values * svd.right(x)), operator(x), svd.right.as_matrix()

    for operator in (mine, chosen):
        *found, rows = map(np.asarray, decomposed(operator, x))
        np.testing.assert_allclose(*found, atol=1e-5)
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-5)


def test_multiples():
    """By numbers and by arrays of NumPy and of JAX, from either side."""
    mask, x = operators.Mask([3, 0], (2, 2)), jnp.arange(1.0, 5.0).reshape(2, 2)
    noise = np.array([2.0, -1.0])
    for scaled in (noise * mask, mask * noise, jnp.asarray(noise) * mask, 2 * (noise / 2 * mask)):
        np.testing.assert_allclose(scaled(x), [8.0, -1.0])
        np.testing.assert_allclose(scaled.adjoint(noise), [[1.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose((np.float32(0.5) * mask)(x), [2.0, 0.5])


def test_integers_are_numbers():
    """An image of bytes is observed as one of floating-point numbers."""
    image = np.arange(24, dtype=np.uint8).reshape(6, 4, 1)
    for name in ("mask of grey", "fourier", "blur"):
        operator = OPERATORS[name]
        bytes_ = np.broadcast_to(image, operator.in_shape)
        found, expected = _applied(operator, bytes_), _applied(operator, np.float32(bytes_))
        np.testing.assert_array_equal(found, expected)


def test_dense_matrices_are_what_functions_give():
    """`exact.dense_matrix` takes an operator as any other function."""
    operator = OPERATORS["mix"]
    matrix = dense_matrix(operator, operator.in_shape)
    expected = jax.jit(lambda operator: operator.as_matrix())(operator)
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    assert operator.shape == ((6, 4, 2), (6, 4, 3)) and matrix.shape == (48, 72)


KEY, X = jax.random.key(0), jnp.ones((4, 4))
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
    (lambda: OPERATORS["mask"] @ OPERATORS["blur, two axes"], "composition: GaussianBlur returns"),
    (lambda: OPERATORS["mask"].adjoint(jnp.ones(2)), "adjoint's input"),
    (lambda: operators.Composition(OPERATORS["mask"], OPERATORS["reshape"]), "Reshape returns"),
    (lambda: operators.Mask([1, 4, 1], (6,)), "entry 1 is listed twice"),
    (lambda: operators.Mask([1, 6], (6,)), "must lie in 0 to 5"),
    (lambda: operators.Mask(np.array([[1, 2]]), (6,)), r"give \(d_y,\)"),
    (lambda: operators.MaskedFourier(np.array([3, 3]), (4, 4)), "entry 3 is listed twice"),
    (lambda: operators.MaskedFourier(np.array([-1]), (4, 4)), "must lie in 0 to 15"),
    (lambda: operators.Dense(jnp.ones((2, 3)), (2, 2)), "does not take"),
    (lambda: operators.Kronecker((np.ones((2, 3)), None), (4, 4)), "do not act on events"),
    (lambda: operators.Kronecker((None,), (4, 4)), "do not act on events"),
    (lambda: operators.Separable((4, 4), np.ones(4), np.eye(4)), "do not act on images"),
    (lambda: operators.GaussianBlur((4, 4), np.ones(2)), "give one number"),
    (lambda: operators.GaussianBlur((4, 4), np.nan), "width is nan"),
    (lambda: np.ones(3) * operators.Mask([1, 2], (6,)), r"of the observation's shape \(2,\)"),
    (lambda: 1j * operators.Mask([1, 2], (6,)), "factor is complex"),
    (lambda: operators.Stacked([]), "at least one"),
    (
        lambda: operators.Stacked([operators.Mask([1], (6,)), operators.Mask([1], (5,))]),
        "all on the same event",
    ),
    (
        lambda: jax.eval_shape(lambda k: operators.Mask.random(k, (4, 4), 0.5)(X), KEY),
        "make the mask outside",
    ),
    (
        lambda: jax.eval_shape(lambda i: operators.MaskedFourier(i, (4, 4))(X), jnp.arange(3)),
        "the indices are traced",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_complex_images_are_refused():
    operator = operators.MaskedFourier.of(np.ones((4, 4), bool), (4, 4, 1))
    with pytest.raises(InputError, match="input is complex"):
        operator(jnp.ones((4, 4, 1)) + 1j)
    with pytest.raises(InputError, match="input is complex"):
        operator.adjoint(jnp.ones(operator.out_shape) + 1j)


def test_products_with_something_else():
    with pytest.raises(TypeError):
        OPERATORS["mask"] @ np.ones((72, 3))
    with pytest.raises(TypeError):
        OPERATORS["mask"] * OPERATORS["mask"]


def test_an_array_that_is_changed_in_place_changes_no_operator():
    """In twenty tries: JAX keeps a NumPy array's memory only where it is aligned."""
    for size in range(64, 84):
        factor, indices = np.ones(size, np.float32), np.arange(size, dtype=np.int32)
        scaled = operators.Scaled(operators.Mask(indices, (size,)), factor)
        factor[:], indices[:] = 7.0, 0
        np.testing.assert_array_equal(scaled(np.arange(size)), np.arange(size))
