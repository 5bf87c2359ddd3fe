"""An operator of one's own: some coefficients of an image's cosine transform."""

import jax
import jax.numpy as jnp

from smcdiff import operators, static


class CosineCoefficients(operators.LinearOperator):
    """The lowest ``count`` x ``count`` coefficients of the orthonormal DCT of an image (h, w).

    Shapes and `apply` are all that an operator must define: the adjoint is its transpose by JAX.
    The rows are orthonormal, and ``structure`` says so: samplers that decompose the operator then
    need no matrix, however large the image is.
    """

    event: tuple[int, int] = static()
    count: int = static()

    in_shape = property(lambda self: self.event)
    out_shape = property(lambda self: (self.count, self.count))
    structure = property(lambda self: operators.Structure(operators.Rows.ORTHONORMAL))

    def apply(self, x):
        """Coefficients of x, (count, count)."""
        rows, columns = (_basis(size)[: self.count] for size in self.event)
        return rows @ x @ columns.T


def _basis(size):
    """The orthonormal DCT of vectors, (size, size)."""
    return jax.scipy.fft.dct(jnp.eye(size), norm="ortho", axis=0)
