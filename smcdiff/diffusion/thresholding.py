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
    """Scales so that the event's own quantile s of absolute values comes to the bound, and clips.

    Where s is below the bound it is the bound, and the mean is only clipped, as by `Static`.

    Where much of a picture sits at the bound, as on a white background, any overshoot makes s
    larger than the bound, and the division greys the whole. Name the ``background`` there: then
    distances from it are scaled, by their own quantile, and it stays what it is.

    Attributes:
        quantile: of the absolute values of one event, in (0, 1]; 0.995 is usual.
        bound: in data units; 1 for images in [-1, 1].
        background: in data units, within the bound; what is scaled are the distances from it. 1 for
            images on white, -1 on black. 0 is Imagen's.
    """

    quantile: float = static(default=0.995)
    bound: float = static(default=1.0)
    background: float = static(default=0.0)

    def __post_init__(self):
        _check_bound("Dynamic", self.bound)
        if not 0.0 < self.quantile <= 1.0:
            raise InputError(
                f"thresholding.Dynamic: quantile is {self.quantile}; it must lie in (0, 1], for"
                " example 0.995 (not a percentage)"
            )
        if not -self.bound <= self.background <= self.bound:
            raise InputError(
                f"thresholding.Dynamic: background is {self.background}; it must lie within the"
                f" bound, {-self.bound:g} to {self.bound:g}"
            )

    def __call__(self, denoised: Float[Array, "*event"]) -> Float[Array, "*event"]:
        """Scaled about the background, and clipped."""
        distances, widest = denoised - self.background, self.bound + abs(self.background)
        reach = jnp.maximum(jnp.quantile(jnp.abs(distances), self.quantile), widest)
        scaled = self.background + distances * (widest / reach)
        return jnp.clip(scaled, -self.bound, self.bound)
