"""The convolution and its gradients against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from smcdiff.networks._convolution import convolve


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 1), (2, 1))])
@pytest.mark.parametrize("width", [1, 3])
def test_value_and_gradients(strides, padding, width):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 6, 3)).astype(np.float32)
    kernel = rng.normal(size=(width, width, 3, 4)).astype(np.float32)

    def reference(x, kernel):
        axes = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=axes)

    @jax.jit
    def both(x, kernel):
        value, pullback = jax.vjp(lambda x, k: convolve(x, k, strides, padding), x, kernel)
        expected, reference_pullback = jax.vjp(reference, x, kernel)
        cotangent = jax.random.normal(jax.random.key(0), value.shape)
        return (value, *pullback(cotangent)), (expected, *reference_pullback(cotangent))

    (value, *ours), (expected, *theirs) = both(x, kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for gradient, reference_gradient in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(gradient, reference_gradient, rtol=1e-4, atol=1e-5)


def test_gradient_in_a_loop_has_the_quick_axes():
    """What XLA is given: every convolution of the compiled loop in the order 01io."""
    kernel = jnp.ones((3, 3, 2, 2))
    pads = ((1, 1), (1, 1))

    def step(x, _):
        return jax.grad(lambda x: jnp.sum(convolve(x, kernel, (1, 1), pads) ** 2))(x), None

    run = jax.jit(lambda x: lax.scan(step, x, None, length=3)[0])
    text = run.lower(jnp.ones((1, 8, 8, 2))).compile().as_text()
    assert "01io" in text and "01oi" not in text
