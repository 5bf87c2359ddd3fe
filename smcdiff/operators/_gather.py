"""Observations that read one number each, some of them the same one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from smcdiff.base.module import static
from smcdiff.operators.algebra import SVD, LinearOperator, Reshape
from smcdiff.operators.mask import Mask
from smcdiff.operators.structure import Rows, Structure, as_floats, as_indices, is_known


class Gather(LinearOperator):
    """Each entry of the observation is one entry of a vector times a weight.

    Two columns have no row in common, so they are orthogonal, and the decomposition needs their
    norms only. Fourier coefficients at k and -k are such an observation of real numbers, and so are
    masks that overlap.

    Attributes:
        weights: (m,) not zero but where nothing is observed; each entry of the vector is read with
            a weight that is not zero at least once.
        sources: (m,) which entry of the vector is read.
        size: q, of the vector.
        result: shape of an observation, of m entries.
    """

    weights: Float[Array, " m"]
    sources: Int[Array, " m"]
    size: int = static()
    result: tuple[int, ...] = static()

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(q,)."""
        return (self.size,)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """``result``."""
        return self.result

    @property
    def structure(self) -> Structure:
        """Rows that read the same entry are parallel."""
        return Structure(Rows.PARALLEL)

    def apply(self, x: Num[Array, " q"]) -> Num[Array, "*observation"]:
        """The entries times their weights."""
        return (self.weights * x[self.sources]).reshape(self.result)

    def svd(self) -> SVD:
        """The values are the norms of the columns."""
        return self.scaled_svd(jnp.ones(()))

    def scaled_svd(self, factor: Float[Array, "..."]) -> SVD:
        """The values are the norms of the scaled columns.

        Where the factor leaves nothing of a column, its own direction is the left vector.
        """
        scaled = self.weights * jnp.broadcast_to(factor, self.result).ravel()
        norms, own = self._norms(scaled), self._norms(self.weights)
        gone = norms == 0.0
        directions = jnp.where(gone[self.sources], self.weights, scaled)
        lengths = jnp.where(gone, own, norms)[self.sources]
        left = Gather(directions / lengths, self.sources, self.size, self.result)
        return SVD(left, norms, Reshape((self.size,), (self.size,)))

    def _norms(self, weights: Float[Array, " m"]) -> Float[Array, " q"]:
        return jnp.sqrt(jax.ops.segment_sum(weights**2, self.sources, self.size))

    def compose_before(self, outer: LinearOperator) -> LinearOperator | None:
        """A mask leaves a `Gather` of the entries that are still read."""
        if not (isinstance(outer, Mask) and is_known(self.weights, self.sources, outer.indices)):
            return None
        chosen = np.asarray(outer.indices)
        weights, sources = np.asarray(self.weights)[chosen], np.asarray(self.sources)[chosen]
        read = np.unique(sources[weights != 0.0])
        if not read.size:
            return None
        renamed = np.minimum(np.searchsorted(read, sources), read.size - 1)
        left = Gather(as_floats(weights), as_indices(renamed), read.size, outer.out_shape)
        return left @ Mask(as_indices(read), self.in_shape)
