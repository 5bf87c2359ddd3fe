"""No decomposition of a structured operator builds anything of the size of its matrix."""

import time

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import operators

SHAPE = (64, 64, 3)
AXIS, SIZE = 64, 64 * 64 * 3
RNG = np.random.default_rng(0)
KEPT = RNG.random(SHAPE[:2]) < 0.3
FACTOR = RNG.random((2, int(KEPT.sum()), 3))
FOURIER = operators.MaskedFourier.of(KEPT, SHAPE)
CIRCULAR = operators.Convolution(SHAPE, RNG.random((5, 5)), circular=True)
GREY = operators.ColourMix.grey(SHAPE)
BLUR = operators.GaussianBlur(SHAPE, 2.0)
BOX = np.zeros(SHAPE, bool)
BOX[10:40, :30] = True
LARGE = {
    "mask": operators.Mask.random(jax.random.key(0), SHAPE, 0.3),
    "blur": BLUR,
    "bicubic": operators.BicubicDownsample(SHAPE, 4),
    "circular": CIRCULAR,
    "fourier": FOURIER,
    "fourier of circular": FOURIER @ CIRCULAR,
    "box of blur": operators.Mask.of(BOX) @ BLUR,
    "mask of grey": operators.Mask.of(KEPT[..., None]) @ GREY,
    "blocks of blur": operators.BlockDownsample(SHAPE, 4) @ BLUR,
    "scaled fourier": operators.Scaled(FOURIER, FACTOR),
    "stacked masks": operators.Stacked(
        [2.0 * operators.Mask.of(BOX), operators.Mask.of(KEPT[..., None] & np.ones(3, bool))]
    ),
}


def _jaxprs(jaxpr):
    """A jaxpr and all inside it."""
    yield jaxpr.jaxpr
    for equation in jaxpr.jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values())):
            if isinstance(inner, jax.extend.core.ClosedJaxpr):
                yield from _jaxprs(inner)


def _sizes(jaxpr):
    """Sizes of all arrays that are made or held."""
    for inner in _jaxprs(jaxpr):
        made = [variable for equation in inner.eqns for variable in equation.outvars]
        yield from (variable.aval.size for variable in inner.invars + inner.constvars + made)


def _largest(function, *arguments):
    return max(_sizes(jax.make_jaxpr(function)(*arguments)))


@pytest.mark.parametrize("name", LARGE)
def test_nothing_dense(name):
    operator = LARGE[name]
    assert operator.structured
    svd = jax.eval_shape(lambda operator: operator.svd(), operator)
    x, y, z = (jnp.zeros(shape) for shape in (SHAPE, operator.out_shape, svd.values.shape))
    made = {
        "svd": _largest(lambda operator: operator.svd(), operator),
        "known": _largest(lambda: operator.svd()),
        "right": _largest(lambda svd, x: svd.right(x), svd, x),
        "right adjoint": _largest(lambda svd, z: svd.right.adjoint(z), svd, z),
        "left": _largest(lambda svd, z: svd.left(z), svd, z),
        "left adjoint": _largest(lambda svd, y: svd.left.adjoint(y), svd, y),
    }
    assert max(made.values()) <= 2 * SIZE, made


def test_the_measure_sees_a_dense_matrix():
    """What `_largest` counts includes arrays inside nested functions and constants."""
    dense = operators.Convolution((16, 16), np.ones((3, 3)))
    assert _largest(lambda operator: jax.jit(lambda o: o.svd().values)(operator), dense) >= 256**2
    table = jnp.zeros((100, 100))
    assert _largest(lambda x: x + table[0, 0], 1.0) == 10_000


def test_a_blur_takes_one_decomposition_for_each_axis():
    """And vectors of the image's size."""
    jaxpr = jax.make_jaxpr(lambda operator: operator.svd())(BLUR)
    made = [equation for inner in _jaxprs(jaxpr) for equation in inner.eqns]
    decomposed = [equation for equation in made if equation.primitive.name == "svd"]
    assert [equation.invars[0].aval.shape for equation in decomposed] == [(AXIS, AXIS)] * 2
    assert max(_sizes(jaxpr)) == SIZE


def test_full_size_is_quick():
    """256 x 256 x 3, of which a dense matrix would take 155 GB."""
    shape = (256, 256, 3)
    kept = np.random.default_rng(0).random(shape[:2]) < 0.3
    fourier, blur = operators.MaskedFourier.of(kept, shape), operators.GaussianBlur(shape, 2.0)
    x = jax.random.normal(jax.random.key(0), shape)

    @jax.jit
    def error(operator, x):
        svd = operator.svd()
        return jnp.max(jnp.abs(svd.left(svd.values * svd.right(x)) - operator(x)))

    start = time.perf_counter()
    assert max(error(fourier, x), error(blur, x)) < 1e-4
    assert time.perf_counter() - start < 60.0
