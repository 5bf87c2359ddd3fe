"""A linear-Gaussian observation with its operator.

A NumPyro model shows the mean of y and not the operator in it. Where the mean was recognised to be
that of an operator of the package (`smcdiff.problem._recognition`), the operator is kept, with the
decomposition that it knows; else its products are those of the mean's derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smcdiff.base.module import Module, static
from smcdiff.operators import Dense, LinearOperator, Scaled


class RecognisedOperator(Module):
    """The operator of the package that the mean of a model applies to x.

    Attributes:
        operator: from an event to the rows that it was found to make.
        rows: (k,) their places among the m observed entries; the other entries see nothing of x.
    """

    operator: LinearOperator
    rows: Int[Array, " k"]


@jax.jit  # one compilation, where eager costs one an operation
def _split(
    misfit: Float[Array, " m"], rows: Int[Array, " k"]
) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    """Some rows of a misfit, and the squared length of the others."""
    return misfit[rows], jnp.sum(misfit.at[rows].set(0.0) ** 2)


class TracedOperator(LinearOperator):
    """The derivative of a whitened misfit, with the sign turned: A of r(x) = r(0) - A x.

    Attributes:
        whitened: from an event to the whitened misfit; a pytree.
        event: shape of an event.
        num_rows: m.
    """

    whitened: Callable
    event: tuple[int, ...] = static()
    num_rows: int = static()

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The event's shape."""
        return self.event

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(m,)."""
        return (self.num_rows,)

    def apply(self, x: Float[Array, "*event"]) -> Float[Array, " m"]:
        """The product A x."""
        _, derivative = jax.linearize(self.whitened, jnp.zeros(self.event))
        return -derivative(x)

    def as_matrix(self) -> Float[Array, "m d"]:
        """The dense matrix, by as many products as it has columns, or rows if those are fewer."""
        size = jnp.zeros(self.event).size
        jacobian = jax.jacrev if self.num_rows <= size else jax.jacfwd
        return -jacobian(lambda x: self.whitened(x.reshape(self.event)))(jnp.zeros((size,)))


class LinearObservation(Module):
    """An observation that is linear in x with Gaussian noise, or with none, whitened.

    The residual is r(x) = target - A x, and log p(y given x) = log_constant - |r(x)|^2 / 2 for
    noise N(0, I). Of an exact observation the residual is y - A x in the units of y and the noise
    is 0.

    Attributes:
        operator: A, from an event to (k,).
        target: (k,).
        log_constant: see above; entries that see nothing of x are in it.
        noise_free: whether the observation is exact.
    """

    operator: LinearOperator
    target: Float[Array, " k"]
    log_constant: Float[Array, ""]
    noise_free: bool = static()

    @classmethod
    def of_recognised(
        cls,
        recognised: RecognisedOperator,
        roots: Float[Array, " m"],
        at_zero: Float[Array, " m"],
        log_normaliser: Float[Array, ""],
        *,
        equal: bool,
        noise_free: bool,
    ) -> LinearObservation:
        """With the operator of the package.

        Args:
            recognised: the operator that acts on x.
            roots: (m,) what whitening multiplies each entry by; 0 where it is masked.
            at_zero: (m,) the whitened misfit at x = 0.
            log_normaliser: of the likelihood.
            equal: whether all roots are equal, so that whitening keeps any decomposition.
            noise_free: whether the observation is exact.
        """
        kept = roots[recognised.rows]
        operator = Scaled(recognised.operator, kept[0] if equal else kept)
        target, unseen = _split(at_zero, recognised.rows)
        return cls(operator, target, log_normaliser - 0.5 * unseen, noise_free)

    @classmethod
    def of_quadratic(
        cls, log_likelihood: Callable, event_shape: tuple[int, ...], rank: int
    ) -> LinearObservation:
        """Of a log likelihood that is a concave quadratic function of x, however it is written.

        With -A'A its Hessian and g its gradient at 0, A'target = g.

        Args:
            log_likelihood: from an event to a scalar.
            event_shape: of an event.
            rank: of the Hessian, k.
        """
        value, gradient, curvature = expand(log_likelihood, event_shape)
        values, vectors = jnp.linalg.eigh(-curvature)
        roots = jnp.sqrt(values[-rank:])
        matrix = roots[:, None] * vectors[:, -rank:].T
        target = (vectors[:, -rank:].T @ gradient) / roots
        constant = value + 0.5 * jnp.sum(target**2)
        return cls(Dense(matrix, event_shape), target, constant, False)

    def residual(self, x: Float[Array, "*event"]) -> Float[Array, " k"]:
        """r(x) = target - A x."""
        return self.target - self.operator(x)

    @property
    def size(self) -> int:
        """Number of entries k."""
        return self.target.shape[0]


def expand(
    log_likelihood: Callable, event_shape: tuple[int, ...]
) -> tuple[Float[Array, ""], Float[Array, " d"], Float[Array, "d d"]]:
    """Value, gradient and Hessian of a log likelihood at x = 0, of flat events."""

    def flat(x: Float[Array, " d"]) -> Float[Array, ""]:
        return log_likelihood(x.reshape(event_shape))

    origin = jnp.zeros((math.prod(event_shape),))
    value, gradient = jax.value_and_grad(flat)(origin)
    return value, gradient, jax.hessian(flat)(origin)
