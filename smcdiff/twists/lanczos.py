"""Moment matching at image size, where the denoiser is exact: a low-rank covariance by Lanczos.

C_t, the Tweedie covariance of x_0 given x_t, is only ever multiplied by vectors, a vector-Jacobian
product of the denoiser each. Lanczos' method from A' r, the direction in which the observation
pulls, gives q orthonormal directions U and C_t ~ c I + U diag(e) U', with c the mean of what is
left (one more product, of a probe from which U is taken out). With that covariance the formulas are
those of `smcdiff.twists.moment_matched`, in the singular coordinates of A, where they cost O(d q);
see `smcdiff.diffusion.laws.low_rank`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import static
from smcdiff.diffusion.kernels import bridge
from smcdiff.diffusion.laws import DiagonalPlus, LowRank, LowRankConditioned, Mixture
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.twists._singular import SingularSystem, require_singular
from smcdiff.twists.base import Evaluation, Twist
from smcdiff.twists.krylov import next_direction, unit


class _Detail(NamedTuple):
    """The residual of the denoised mean, C_t, and A times its directions."""

    residual: Float[Array, " r"]
    covariance: LowRank
    columns: Float[Array, "r q"]


class Lanczos(Twist):
    """N(r(m(x_t)); 0, I + A C_t A') with a low-rank C_t; see the module.

    For exact denoisers: with 40 factors a class its log evidence of half a digit is right to a
    fraction of a nat (``experiments/mnist_exact``). A network's Jacobian is neither symmetric nor
    positive and its small variances are too sure; there `Krylov`, whose determinant depends on the
    level alone, does better. While the classes are undecided a Gaussian twist is wrong by many
    nats, and resampling on it leaves few distinct particles: let ``ess_threshold`` of `SMC` be zero
    at such levels.

    Attributes:
        size: q, the number of directions; never more than an event has entries.
    """

    size: int = static(default=32)
    conditions: ClassVar[bool] = True

    def __post_init__(self):
        if self.size < 1:
            raise InputError(f"twists.Lanczos: size is {self.size}; it must be at least 1")

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless the observation is linear-Gaussian and decomposable."""
        require_singular(model, "twists.Lanczos")

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> SingularSystem:
        """The singular system of the operator."""
        return SingularSystem.of(model)

    def evaluate(
        self, model: ReverseModel, prepared: SingularSystem, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The moment-matched twist, from one evaluation of the denoiser and a few pullbacks."""
        denoised, pullback = jax.vjp(lambda x: model.denoise(x, t), x)
        residual = prepared.misfit(denoised)

        def covariance_times(vector):
            return (t.sigma**2 / t.alpha) * pullback(vector)[0]

        size = min(self.size, model.size)
        covariance = _lanczos(covariance_times, prepared.adjoint(residual), size)
        columns = jax.vmap(prepared.project)(covariance.directions).T
        joint = DiagonalPlus.of(
            1.0 + covariance.base * prepared.values**2, columns, covariance.excess
        )
        log_twist = prepared.log_constant + joint.log_kernel(residual)
        return Evaluation(log_twist, denoised, _Detail(residual, covariance, columns))

    def condition(
        self,
        transition: Mixture,
        model: ReverseModel,
        prepared: SingularSystem,
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> LowRankConditioned:
        """The reverse kernel conditioned on the linearised twist.

        Where the kernel is the exact one of a mixture, x_s is drawn from one with its means and
        weights and the covariance of the whole for each component.
        """
        detail: _Detail = evaluation.detail
        is_last = s.is_clean  # there psi_0 is the likelihood, linear in x_0
        delta = jnp.where(is_last, 1.0, jnp.exp(s.log_snr) - jnp.exp(t.log_snr))
        scale = jnp.where(is_last, 1.0, s.alpha / jnp.where(is_last, 1.0, s.sigma**2))
        later = detail.covariance.map(lambda c: c / (1.0 + delta * c))
        slope = later.map(lambda c: jnp.where(is_last, 1.0, scale * c))
        spread = later.map(lambda c: jnp.where(is_last, 0.0, c))
        if transition.isotropic:
            variance = transition.mean_variance
            covariance = detail.covariance.map(lambda c: variance + 0.0 * c)
        else:  # of the exact kernel as a whole, which no component's exceeds
            _, on_clean, tau2 = bridge(t, s)
            covariance = detail.covariance.map(lambda c: tau2 + on_clean**2 * c)
        return LowRankConditioned.of(
            transition, covariance, slope, spread, detail.residual, prepared, detail.columns
        )


def _lanczos(
    covariance_times: Callable[[Array], Array], start: Float[Array, " d"], size: int
) -> LowRank:
    """C as c I + U diag(e) U' with e >= 0, from its products with vectors.

    Args:
        covariance_times: v to C v.
        start: first direction, (d,).
        size: number of directions.
    """

    def grow(basis, index):
        """One product, and the next direction."""
        image = covariance_times(basis[index])
        return basis.at[index + 1].set(next_direction(basis, image)), image

    # A scan holds the program of one product, not of all; the row behind the last is cut off.
    basis = jnp.zeros((size + 1, *start.shape), start.dtype).at[0].set(unit(start))
    basis, images = jax.lax.scan(grow, basis, jnp.arange(size))
    rows = basis[:size]
    projected = rows @ images.T
    values, vectors = jnp.linalg.eigh(0.5 * (projected + projected.T))
    # The same probe for all: the twist must be a function of x_t.
    probe = jax.random.rademacher(jax.random.key(0), start.shape, start.dtype)
    remainder = probe - rows.T @ (rows @ probe)
    # Where next to nothing is left it is rounding, and the smallest direction stands for the rest.
    full = jnp.linalg.norm(remainder) < 1e-3 * jnp.linalg.norm(probe)
    smallest = jnp.min(jnp.where(values > 0.0, values, jnp.inf))
    remainder = unit(remainder)
    base = jnp.where(full, smallest, jnp.maximum(remainder @ covariance_times(remainder), 0.0))
    return LowRank(base, vectors.T @ rows, jnp.maximum(values - base, 0.0))
