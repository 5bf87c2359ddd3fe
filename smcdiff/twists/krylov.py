"""Moment matching at image size: a Krylov space in place of a dense covariance."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import static
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.twists._singular import require_linear
from smcdiff.twists.base import Evaluation, Twist
from smcdiff.twists.widened import Widening


class Krylov(Twist):
    """`MomentMatched` for many observations: A C_t A' is only ever multiplied by vectors.

    Whitened and with C_t the Tweedie covariance, m + C_t A' w is the mean of x_0 given x_t and y
    where (I + A C_t A') w = r(m(x_t)) (Rozet et al. 2024, section 3, who take a few conjugate
    gradient steps). Here the system is solved in the Krylov space of r, like conjugate gradients,
    but with the projected matrix made symmetric and kept above ``floor``: a network's Jacobian is
    neither symmetric nor positive, on which conjugate gradients diverge. The twist is exp(-r' w /
    2) with the determinant of `Widened`.

    The detail of its evaluation is C_t A' w, (d,), by which the observation moves the mean of x_0.

    Attributes:
        size: dimension of the Krylov space: so many vector-Jacobian products.
        floor: A C_t A' is taken for at least this part of what `Widened` widens by, in [0, 1]. 0
            suits exact denoisers; a learned one's small variances make twists that are too sure.
    """

    size: int = static(default=3)
    floor: float = static(default=0.3)

    def __post_init__(self):
        if self.size < 1:
            raise InputError(f"twists.Krylov: size is {self.size}; it must be at least 1")
        if not 0.0 <= self.floor <= 1.0:
            raise InputError(f"twists.Krylov: floor is {self.floor}; it must lie in [0, 1]")

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless the observation is linear-Gaussian."""
        require_linear(model.problem, "twists.Krylov")

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Widening:
        """The observation, and the row norms for the determinant."""
        return Widening.of(model)

    def evaluate(
        self, model: ReverseModel, prepared: Widening, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The twist and the gain, from one evaluation of the denoiser and a few pullbacks."""
        observation = prepared.observation
        denoised, pullback = jax.vjp(lambda x: model.denoise(x, t), x)

        def covariance_times(w):
            """The product C_t A' w."""
            pulled = jnp.ravel(observation.operator.adjoint(w))
            return (t.sigma**2 / t.alpha) * pullback(pulled)[0]

        def operator(x):
            return observation.operator(model.event(x))

        residual = observation.residual(model.event(denoised))
        variances = 1.0 + model.problem.prior.spread(t) * prepared.row_norms
        least = 1.0 + self.floor * (variances - 1.0)
        solution, gain = _solve(covariance_times, operator, residual, least, self.size)
        quadratic = residual @ solution
        log_twist = observation.log_constant - 0.5 * (quadratic + jnp.sum(jnp.log(variances)))
        return Evaluation(log_twist, denoised, gain)


def _solve(
    covariance_times: Callable[[Array], Array],
    operator: Callable[[Array], Array],
    residual: Float[Array, " m"],
    least: Float[Array, " m"],
    size: int,
) -> tuple[Float[Array, " m"], Float[Array, " d"]]:
    """Solves (I + A C A') w = r in the Krylov space of r.

    Args:
        covariance_times: w to C A' w.
        operator: u to A u.
        residual: r, (m,).
        least: (m,) diagonal matrix below which I + A C A' cannot be.
        size: dimension of the space.

    Returns:
        w (m,) and C A' w (d,).
    """
    basis, gains, images = [unit(residual)], [], []
    for index in range(size):
        gains.append(covariance_times(basis[index]))
        images.append(basis[index] + operator(gains[index]))
        if index + 1 < size:
            basis.append(next_direction(jnp.stack(basis), images[index]))
    columns = jnp.stack(basis)
    floor = (columns * least[None]) @ columns.T
    # Directions that were exhausted have no row in the basis. They get eigenvalues below zero, of
    # which none counts, apart from each other: the derivative of eigh knows no eigenvalue twice.
    exhausted = jnp.sum(columns**2, axis=1) == 0.0
    apart = jnp.where(exhausted, 1.0 + jnp.arange(size), 0.0)
    excess = columns @ jnp.stack(images).T - floor - jnp.diag(apart)
    values, vectors = jnp.linalg.eigh(0.5 * (excess + excess.T))
    projected = floor + (vectors * jnp.maximum(values, 0.0)[None]) @ vectors.T
    projected += jnp.diag(exhausted.astype(projected.dtype))
    coefficients = jnp.linalg.solve(projected, columns @ residual)
    return coefficients @ columns, coefficients @ jnp.stack(gains)


def unit(vector: Float[Array, " n"]) -> Float[Array, " n"]:
    """The vector at length one; zero stays zero, and has a finite derivative."""
    square = jnp.sum(vector**2)
    return vector / jnp.sqrt(jnp.where(square > 0.0, square, 1.0))


def next_direction(rows: Float[Array, "n d"], image: Float[Array, " d"]) -> Float[Array, " d"]:
    """What the orthonormal rows (or zeros) do not have of a vector, at length one.

    Zero where the space is exhausted: what is left of the vector then is rounding.
    """
    new = image
    for _ in range(2):  # once is not orthogonal enough in float32
        new = new - rows.T @ (rows @ new)
    exhausted = jnp.linalg.norm(new) < 1e-4 * jnp.linalg.norm(image)
    return jnp.where(exhausted, 0.0, unit(jnp.where(exhausted, image, new)))
