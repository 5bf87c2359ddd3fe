"""A 2-D convolution whose gradient is fast inside a loop.

XLA on the CPU has a quick convolution for one order of the kernel's axes, and brings other orders
into it only outside loops. JAX writes the gradient in the other order, so that inside a ``scan``,
where samplers live, it falls back to code that is four times slower. Here the gradient is written
as the convolution with the flipped kernel, in the order that is quick.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

_AXES = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "p q i o"],
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> Float[Array, "b j k o"]:
    """Cross-correlation as in every deep-learning library; reverse-mode derivatives only."""
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_AXES)


def _forward(x, kernel, strides, padding):
    return convolve(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, saved, cotangent):
    x, kernel = saved

    def of_kernel(kernel):
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_AXES)

    (to_kernel,) = jax.vjp(of_kernel, kernel)[1](cotangent)
    pads = []
    for axis in (0, 1):
        before = kernel.shape[axis] - 1 - padding[axis][0]
        length = (cotangent.shape[1 + axis] - 1) * strides[axis] + 1
        pads.append((before, x.shape[1 + axis] + kernel.shape[axis] - 1 - length - before))
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    to_x = lax.conv_general_dilated(
        cotangent, flipped, (1, 1), pads, lhs_dilation=strides, dimension_numbers=_AXES
    )
    return to_x, to_kernel


convolve.defvjp(_forward, _backward)


def _as_flax(x, kernel, strides, pads, **_):
    """`convolve` in the place of ``lax.conv_general_dilated``.

    One function for all layers: a network's structure is part of the key of compiled programs.
    """
    return convolve(x, kernel, tuple(strides), tuple(tuple(pad) for pad in pads))


class Conv(nnx.Conv):
    """Flax's convolution of images, with ``padding`` pixels of zeros on each side."""

    def __init__(self, size: int, out: int, width: int, *, padding: int = 0, **options: Any):
        """``width`` x ``width`` kernels; options are those of ``flax.nnx.Conv``."""
        pads = ((padding, padding), (padding, padding))
        super().__init__(
            size, out, (width, width), padding=pads, conv_general_dilated=_as_flax, **options
        )
