"""Some Fourier coefficients of an image: the observation of MRI and of interferometry."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.operators.base import LinearOperator


def _waves(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the unitary transform of one axis, (size, size)."""
    angles = 2.0 * np.pi * (np.outer(np.arange(size), np.arange(size)) % size) / size
    scale = size**-0.5
    return scale * np.cos(angles), scale * np.sin(angles)


class MaskedFourier(LinearOperator):
    """Real and imaginary parts of chosen coefficients of the unitary 2-D transform; see ``of``.

    Attributes:
        indices: (m,) flat indices of the coefficients, in the order of ``jnp.fft.fft2``.
        event: (h, w) or (h, w, c); channels are transformed one by one.
    """

    indices: Int[Array, " m"]
    event: tuple[int, ...] = static()

    @classmethod
    def of(cls, kept, shape: tuple[int, ...]) -> MaskedFourier:
        """From an array of truth values.

        Args:
            kept: (h, w), True (or 1) where a coefficient is observed; frequency zero is [0, 0].
            shape: (h, w) or (h, w, c).

        Raises:
            InputError: shapes that do not fit, nothing observed, or other values.
        """
        kept, shape = np.asarray(kept), tuple(shape)
        if len(shape) not in (2, 3) or kept.shape != shape[:2]:
            raise InputError(
                f"MaskedFourier: kept has shape {kept.shape}; it must be (h, w) of {shape}"
            )
        if not np.all(np.isin(kept, (0, 1))) or not kept.any():
            raise InputError("MaskedFourier: kept must be 0 or 1, and 1 somewhere")
        return cls(jnp.asarray(np.flatnonzero(kept), jnp.int32), shape)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The image's shape."""
        return self.event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(2, m) or (2, m, c): real parts, imaginary parts."""
        return (2, self.indices.shape[0], *self.event[2:])

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, "*out"]:
        """The coefficients.

        By matrix products: inside a particle filter XLA's FFT on the CPU can wait for threads that
        its own caller holds, for ever (field report: PyAutoFit issue 1530).
        """
        (cos_h, sin_h), (cos_w, sin_w) = (_waves(size) for size in self.event[:2])

        def transform(left, right):
            left, right = jnp.asarray(left, x.dtype), jnp.asarray(right, x.dtype)
            return jnp.einsum("ij,jk...,lk->il...", left, x, right)

        real = transform(cos_h, cos_w) - transform(sin_h, sin_w)
        imaginary = -transform(sin_h, cos_w) - transform(cos_h, sin_w)
        both = jnp.stack([real, imaginary]).reshape(2, -1, *self.event[2:])
        return both[:, self.indices]
