"""The Fourier transform of images, and the observation of some coefficients (MRI, interferometry).

Coefficients are those of the unitary transform, X_k = sum_p x_p exp(-2 pi i k.p) / sqrt(h w) with
k.p = k_1 p_1 / h + k_2 p_2 / w. Those of a real image at k and -k are conjugates, so the numbers

    sqrt(2) Re X_k at one of k and -k, sqrt(2) Im X_k at the other, and X_k where -k is k

are coordinates of the image in an orthonormal basis (`RealFourier`). A circular convolution turns
the two coordinates of a pair by the phase of its transfer function and multiplies them by the
modulus; an observation of coefficients reads one coordinate for each real or imaginary part.

Transforms are matrix products and not XLA's FFT: inside a particle filter XLA's FFT on the CPU can
wait for threads that its own caller holds, for ever (field report: PyAutoFit issue 1530).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num

from smcdiff.base.module import Module, set_fields
from smcdiff.errors import InputError
from smcdiff.operators._gather import Gather
from smcdiff.operators._images import ImageOperator, check_image
from smcdiff.operators.algebra import SVD, LinearOperator, Reshape, Scaled
from smcdiff.operators.kronecker import apply_factors
from smcdiff.operators.mask import Mask, check_distinct
from smcdiff.operators.structure import (
    Rows,
    Structure,
    as_floats,
    as_indices,
    at_once,
    is_known,
)


def _reversed(table: Array, axes: tuple[int, ...] = (0, 1)) -> Array:
    """The entries at -k in the place of those at k."""
    return jnp.roll(jnp.flip(table, axes), 1, axes)


def _negatives(shape: tuple[int, ...]) -> np.ndarray:
    """(h w,) flat index of -k for each k."""
    height, width = shape[:2]
    rows, columns = -np.arange(height) % height, -np.arange(width) % width
    return (rows[:, None] * width + columns).ravel()


def _hartley(size: int) -> np.ndarray:
    """(size, size): the orthogonal matrix of cos + sin."""
    angles = 2.0 * np.pi * (np.outer(np.arange(size), np.arange(size)) % size) / size
    return (np.cos(angles) + np.sin(angles)) / np.sqrt(size)


class Transfer(Module):
    """What a circular convolution multiplies the Fourier coefficients by.

    Attributes:
        real: (h, w), the same at k and -k.
        imaginary: (h, w), of opposite signs at k and -k.
    """

    real: Float[Array, "h w"]
    imaginary: Float[Array, "h w"]

    @classmethod
    def of_filter(cls, kernel: Float[Array, "a b"], shape: tuple[int, ...]) -> Transfer:
        """That of a filter whose centre stays in place, on images of ``shape``."""
        waves = []
        for length, size in zip(kernel.shape, shape[:2], strict=True):
            angles = 2.0 * np.pi * np.outer(np.arange(size), np.arange(length) - length // 2) / size
            waves.append((as_floats(np.cos(angles)), as_floats(np.sin(angles))))
        (cos_h, sin_h), (cos_w, sin_w) = waves

        def transform(left, right):
            return apply_factors((left, right), kernel)

        real = transform(cos_h, cos_w) - transform(sin_h, sin_w)
        imaginary = -transform(sin_h, cos_w) - transform(cos_h, sin_w)
        # The symmetry must hold to the last bit, or turning by the phase would not be orthogonal.
        return cls(0.5 * (real + _reversed(real)), 0.5 * (imaginary - _reversed(imaginary)))

    def __mul__(self, other: Transfer) -> Transfer:
        """That of both, one after the other."""
        return Transfer(
            self.real * other.real - self.imaginary * other.imaginary,
            self.real * other.imaginary + self.imaginary * other.real,
        )

    def polar(self) -> tuple[Float[Array, "h w"], Transfer]:
        """The modulus, and the phase as another one of these; it is 1 where the modulus is 0."""
        nothing = (self.real == 0.0) & (self.imaginary == 0.0)
        length = jnp.hypot(jnp.where(nothing, 1.0, self.real), self.imaginary)
        phase = Transfer(jnp.where(nothing, 1.0, self.real / length), self.imaginary / length)
        return jnp.where(nothing, 0.0, length), phase


class RealFourier(ImageOperator):
    """The coordinates of an image in the real Fourier basis, channel by channel; orthogonal.

    Attributes:
        phase: of modulus one, applied to the coefficients; None: none.
    """

    phase: Transfer | None

    @property
    def structure(self) -> Structure:
        """Orthogonal."""
        return Structure(Rows.ORTHONORMAL, isometry=True)

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*event"]:
        """The coordinates, each at its k.

        The product H of the Hartley matrices of both axes gives all coefficients of a real image:
        Re X_k = (H_{-k1,k2} + H_{k1,-k2}) / 2 and Im X_k = (H_{-k} - H_k) / 2.
        """
        matrices = [jnp.asarray(_hartley(size), x.dtype) for size in self.event[:2]]
        waves = apply_factors((*matrices, None)[: len(self.event)], x)
        real = 0.5 * (_reversed(waves, (0,)) + _reversed(waves, (1,)))
        imaginary = 0.5 * (_reversed(waves) - waves)
        cosines, sines = (self._spread(table, x.dtype) for table in _coordinates(self.event))
        out = cosines * real + sines * imaginary
        if self.phase is None:
            return out
        turn_real = self._spread(self.phase.real, x.dtype)
        turn_imaginary = self._spread(self.phase.imaginary, x.dtype)
        return turn_real * out + turn_imaginary * _reversed(out)

    def _spread(self, table: np.ndarray | Array, dtype) -> Array:
        """A table of (h, w) on all channels."""
        return jnp.asarray(table, dtype).reshape(self.event[:2] + (1,) * len(self.event[2:]))


def _coordinates(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What real and imaginary part are multiplied by, (h, w) each.

    Of k and -k the one of smaller flat index has the real part, the other one the imaginary part.
    """
    negatives = _negatives(shape)
    own = np.arange(negatives.size)
    cosines = np.where(own == negatives, 1.0, np.where(own < negatives, np.sqrt(2.0), 0.0))
    sines = np.where(own > negatives, np.sqrt(2.0), 0.0)
    return cosines.reshape(shape[:2]), sines.reshape(shape[:2])


class InverseFourier(ImageOperator):
    """The image of which `RealFourier` (without a phase) gives the coordinates."""

    @property
    def structure(self) -> Structure:
        """Orthogonal."""
        return Structure(Rows.ORTHONORMAL, isometry=True)

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*event"]:
        """The image."""
        return RealFourier(self.event, None).adjoint(x)


class FourierFilter(ImageOperator):
    """Multiplication of the Fourier coefficients of each channel: circular convolutions in a row.

    Attributes:
        transfer: what they are multiplied by.
    """

    transfer: Transfer

    @property
    def structured(self) -> bool:
        """Always."""
        return True

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*event"]:
        """The filtered image."""
        svd = self.svd()
        return svd.left.apply(svd.values.astype(x.dtype) * svd.right.apply(x))

    def svd(self) -> SVD:
        """The modulus of the transfer function; its phase goes into the right vectors."""
        modulus, phase = self.transfer.polar()
        flat = (math.prod(self.event),)
        right = Reshape(self.event, flat) @ RealFourier(self.event, phase)
        left = InverseFourier(self.event) @ Reshape(flat, self.event)
        return SVD(left, _per_channel(modulus.ravel(), self.event), right)

    def filtered(self, transfer: Transfer) -> FourierFilter:
        """This and another filter, in whichever order."""
        return FourierFilter(self.event, self.transfer * transfer)

    def compose_before(self, outer: LinearOperator) -> LinearOperator | None:
        """Filters are one; an observation of coefficients takes it in."""
        if isinstance(outer, FourierFilter | MaskedFourier):
            return outer.filtered(self.transfer)
        return None


def _per_channel(values: Array, event: tuple[int, ...]) -> Array:
    """(n,) to (n c,): the same on every channel."""
    return jnp.repeat(values, math.prod(event[2:]))


class MaskedFourier(ImageOperator):
    """Real and imaginary parts of chosen coefficients of the unitary 2-D transform; see ``of``.

    The singular values are sqrt(1/2), or 1 where both k and -k are observed and where -k is k.

    Args:
        indices: (m,) flat indices of the coefficients, in the order of ``jnp.fft.fft2``.
        event: (h, w) or (h, w, c); channels are transformed one by one.

    Attributes:
        coordinates: (q,) flat indices k of the coordinates of `RealFourier` that are read.
        sources: (2 m,) which of these each real part reads, and then each imaginary part.
        weights: (2 m,) what the coordinate is multiplied by.
        transfer: of a filter that comes first, or None.

    Raises:
        InputError: indices that are traced, repeated or out of range, or a shape of other rank.
    """

    coordinates: Int[Array, " q"]
    sources: Int[Array, " n"]
    weights: Float[Array, " n"]
    transfer: Transfer | None

    def __init__(self, indices: Int[Array | np.ndarray, " m"], event: tuple[int, ...]):
        event = check_image("MaskedFourier", event)
        if not is_known(indices):
            raise InputError(
                "MaskedFourier: the indices are traced; which coefficients are observed must be"
                " known when the operator is made"
            )
        own = np.asarray(indices)
        check_distinct("MaskedFourier", own, math.prod(event[:2]))
        other = _negatives(event)[own]
        real, imaginary = np.minimum(own, other), np.maximum(own, other)
        alone, half = own == other, np.sqrt(0.5)
        weights = np.where(alone, 1.0, half), np.where(alone, 0.0, np.sign(own - other) * half)
        # In the order in which they are read, so that no two readers of one leave all in order.
        read, first, sources = np.unique([real, imaginary], return_index=True, return_inverse=True)
        order = np.argsort(first)
        set_fields(
            self,
            coordinates=as_indices(read[order]),
            sources=as_indices(np.argsort(order)[sources.ravel()]),
            weights=as_floats(np.concatenate(weights)),
            transfer=None,
            event=event,
        )

    @classmethod
    def of(cls, kept: ArrayLike | Sequence[Any], shape: tuple[int, ...]) -> MaskedFourier:
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
        return cls(np.flatnonzero(kept), shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(2, m) or (2, m, c): real parts, imaginary parts."""
        return (2, self.sources.shape[0] // 2, *self.event[2:])

    @property
    def structure(self) -> Structure:
        """Rows are parallel at k and -k, and zero for the imaginary part where -k is k."""
        none_twice = self.coordinates.shape == self.sources.shape
        complete = self.transfer is None and self.out_shape[1] == math.prod(self.event[:2])
        return Structure(Rows.ORTHOGONAL if none_twice else Rows.PARALLEL, isometry=complete)

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, "*observation"]:
        """The coefficients."""
        modulus, phase = self._polar()
        out = RealFourier(self.event, phase).apply(x).reshape(-1, *self.event[2:])
        out = out[self.coordinates[self.sources]]
        weights = (self.weights * modulus).astype(x.dtype)
        return (weights.reshape(-1, *(1 for _ in self.event[2:])) * out).reshape(self.out_shape)

    def _polar(self) -> tuple[Float[Array, " n"], Transfer | None]:
        """The modulus of the filter for each part that is read, and its phase."""
        if self.transfer is None:
            return jnp.ones(self.sources.shape), None
        modulus, phase = self.transfer.polar()
        return modulus.ravel()[self.coordinates[self.sources]], phase

    def _parts(self) -> tuple[Gather, Float[Array, "*observation"], LinearOperator]:
        """What reads the coordinates, the modulus of the filter, and what gives the coordinates."""
        modulus, phase = self._polar()
        with at_once(self.weights, self.sources, self.coordinates):
            channels = jnp.arange(math.prod(self.event[2:]))[None, :]
            sources, read = (
                (indices[:, None] * channels.size + channels).ravel()
                for indices in (self.sources, self.coordinates)
            )
            weights = _per_channel(self.weights, self.event)
            gather = Gather(weights, sources, read.size, self.out_shape)
            chosen = Mask(read, self.event)
        factor = _per_channel(modulus, self.event).reshape(self.out_shape)
        return gather, factor, chosen @ RealFourier(self.event, phase)

    def svd(self) -> SVD:
        """From the real Fourier basis."""
        if not self.orthogonal_rows:
            return self.scaled_svd(jnp.ones(()))
        gather, factor, basis = self._parts()
        flat, signs = Reshape(basis.out_shape, self.out_shape), jnp.sign(gather.weights)
        values = jnp.abs(gather.weights) * factor.ravel()
        return SVD(flat, values, Scaled(basis, signs))

    def scaled_svd(self, factor: Float[Array, "..."]) -> SVD:
        """From the real Fourier basis."""
        if self.orthogonal_rows:
            return super().scaled_svd(factor)
        gather, modulus, basis = self._parts()
        svd = gather.scaled_svd(factor * modulus)
        return SVD(svd.left, svd.values, basis)

    def filtered(self, transfer: Transfer) -> MaskedFourier:
        """The same coefficients of a filtered image."""
        both = transfer if self.transfer is None else self.transfer * transfer
        after = copy.copy(self)
        set_fields(after, transfer=both)
        return after

    def compose_before(self, outer: LinearOperator) -> LinearOperator | None:
        """A mask reads some of the parts."""
        if not isinstance(outer, Mask):
            return None
        gather, factor, basis = self._parts()
        read = gather.compose_before(outer)
        if read is None:
            return None
        chosen = read @ basis
        return chosen if self.transfer is None else Scaled(chosen, outer.apply(factor))
