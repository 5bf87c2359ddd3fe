"""Thresholding: a denoised mean brought back to the range of the data.

A threshold is applied where the denoised mean is made, `Prior.denoise`, so that kernel and twist
see the same mean and the density in the weights is the one that was drawn from.

Reference:
    Saharia et al. (2022), Photorealistic text-to-image diffusion models (Imagen), section 2.3.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import Module, static
from smcdiff.errors import InputError


def _check_bound(name: str, bound: float) -> None:
    if not bound > 0.0:
        raise InputError(f"thresholding.{name}: bound is {bound}; it must be positive")


class Threshold(Module):
    """Base class: a callable on the denoised mean of one event."""

    def __call__(self, denoised: Float[Array, "*event"]) -> Float[Array, "*event"]:
        """The mean within bounds."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")


class Static(Threshold):
    """Clips to [-bound, bound].

    Attributes:
        bound: in data units; 1 for images in [-1, 1].
    """

    bound: float = static(default=1.0)

    def __post_init__(self):
        _check_bound("Static", self.bound)

    def __call__(self, denoised: Float[Array, "*event"]) -> Float[Array, "*event"]:
        """Each entry clipped."""
        return jnp.clip(denoised, -self.bound, self.bound)


class Dynamic(Threshold):
    """Clips to the event's own quantile s of absolute values, and divides by s over the bound.

    Where s is below the bound it is the bound, and the mean is only clipped, as by `Static`.

    Attributes:
        quantile: of the absolute values of one event, in (0, 1]; 0.995 is usual.
        bound: in data units; 1 for images in [-1, 1].
    """

    quantile: float = static(default=0.995)
    bound: float = static(default=1.0)

    def __post_init__(self):
        _check_bound("Dynamic", self.bound)
        if not 0.0 < self.quantile <= 1.0:
            raise InputError(
                f"thresholding.Dynamic: quantile is {self.quantile}; it must lie in (0, 1], for"
                " example 0.995 (not a percentage)"
            )

    def __call__(self, denoised: Float[Array, "*event"]) -> Float[Array, "*event"]:
        """Clipped to the quantile and scaled."""
        reach = jnp.maximum(jnp.quantile(jnp.abs(denoised), self.quantile), self.bound)
        return jnp.clip(denoised, -reach, reach) * (self.bound / reach)
