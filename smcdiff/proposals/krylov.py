"""Moment matching at image size: a Krylov space in place of a dense covariance."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.module import static
from smcdiff.diffusion.kernels import bridge
from smcdiff.errors import InputError
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.linear import next_direction, require_linear, unit
from smcdiff.proposals.twists import Widening, widening


class _Guide(NamedTuple):
    """The denoised mean, and by how much the observation moves the mean of x_0 given x_t."""

    denoised: Float[Array, " d"]
    gain: Float[Array, " d"]


class KrylovMomentMatched(Proposal):
    """`MomentMatched` for many observations: A C_t A' is only ever multiplied by vectors.

    Whitened and with C_t the Tweedie covariance, m + C_t A' w is the mean of x_0 given x_t and y
    where (I + A C_t A') w = r(m(x_t)) (Rozet et al. 2024, section 3, who take a few conjugate
    gradient steps); the reverse kernel is tilted to the mean that follows. Here the system is
    solved in the Krylov space of r, like conjugate gradients, but with the projected matrix made
    symmetric and kept above ``floor``: a network's Jacobian is neither symmetric nor positive, on
    which conjugate gradients diverge. The twist is exp(-r' w / 2) with the determinant
    of `Twisted`'s; any function of x_t makes consistent weights if numerator and denominator are
    the same one, so a small space costs efficiency and nothing else.

    Cost: one network evaluation and ``size`` vector-Jacobian products a particle and step.

    Attributes:
        size: dimension of the Krylov space.
        floor: A C_t A' is taken for at least this part of what `Twisted` widens by, in [0, 1]. 0
            suits exact denoisers; a learned one's small variances make twists that are too sure.
    """

    size: int = static(default=3)
    floor: float = static(default=0.3)

    def __post_init__(self):
        if self.size < 1:
            raise InputError(f"KrylovMomentMatched: size is {self.size}; it must be at least 1")
        if not 0.0 <= self.floor <= 1.0:
            raise InputError(f"KrylovMomentMatched: floor is {self.floor}; it must lie in [0, 1]")

    def check(self, model):
        """Raises ``InputError`` unless the observation is linear-Gaussian."""
        require_linear(model.problem, "KrylovMomentMatched")

    def prepare(self, key, model):
        """The row norms for the determinant, and the likelihood's constant."""
        return widening(key, model)

    def guide(self, model: ReverseModel, shared: Widening, x, step):
        """The twist and the gain, from one evaluation of the denoiser and a few pullbacks."""
        t = model.level(step)
        denoised, pullback = jax.vjp(lambda x: model.denoise(x, t), x)
        residual, push = jax.linearize(model.residual, denoised)
        adjoint = jax.linear_transpose(push, denoised)

        def covariance_times(w):
            """The product C_t A' w."""
            return (t.sigma**2 / t.alpha) * pullback(-adjoint(w)[0])[0]

        variances = 1.0 + model.problem.prior.spread(t) * shared.row_norms
        least = 1.0 + self.floor * (variances - 1.0)
        solution, gain = _solve(covariance_times, push, residual, least, self.size)
        quadratic = residual @ solution
        log_twist = shared.log_normaliser - 0.5 * (quadratic + jnp.sum(jnp.log(variances)))
        return log_twist, _Guide(denoised, gain)

    def law(self, model, shared, x, guide: _Guide, step):
        """The reverse kernel, tilted so that its mean follows the observation."""
        _, on_clean, _ = bridge(model.level(step), model.level(step + 1))
        transition = model.transition(x, guide.denoised, step)
        variance = transition.mean_variance
        tilt = jnp.where(variance > 0.0, on_clean / jnp.where(variance > 0, variance, 1.0), 0.0)
        return transition.tilted(tilt * guide.gain)


def _solve(covariance_times, push, residual, least, size: int):
    """Solves (I + A C A') w = r in the Krylov space of r.

    Args:
        covariance_times: w to C A' w.
        push: the derivative of the residual, u to -A u.
        residual: r, (m,).
        least: (m,) diagonal matrix below which I + A C A' cannot be.
        size: dimension of the space.

    Returns:
        w (m,) and C A' w (d,).
    """
    basis, gains, images = [unit(residual)], [], []
    for index in range(size):
        gains.append(covariance_times(basis[index]))
        images.append(basis[index] - push(gains[index]))
        if index + 1 < size:
            basis.append(next_direction(jnp.stack(basis), images[index]))
    columns = jnp.stack(basis)
    floor = (columns * least) @ columns.T
    excess = columns @ jnp.stack(images).T - floor
    values, vectors = jnp.linalg.eigh(0.5 * (excess + excess.T))
    projected = floor + (vectors * jnp.maximum(values, 0.0)) @ vectors.T
    # Directions that were exhausted have no row in the basis.
    projected += jnp.diag(jnp.where(jnp.sum(columns**2, axis=1) > 0.0, 0.0, 1.0))
    coefficients = jnp.linalg.solve(projected, columns @ residual)
    return coefficients @ columns, coefficients @ jnp.stack(gains)
