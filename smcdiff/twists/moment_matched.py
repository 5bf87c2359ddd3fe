"""The moment-matched twist: Tweedie's covariance of x_0 given x_t, through the operator.

By Tweedie's second-order formula the covariance of x_0 given x_t is C_t = (sigma_t^2 / alpha_t)
dm/dx. In whitened coordinates (noise N(0, I), residual r, operator A) the twist is

    psi_t(x_t) = N(r(m(x_t)); 0, I + A C_t A').

As a function of x_s the twist psi_s is linearised about the mean of the reverse kernel,

    psi_s(x_s) ~ N(r; H (x_s - mean), I + A C_s A'),   H = (alpha_s / sigma_s^2) A C_s,

and x_s is drawn from the kernel conditioned on it. C_s = C_t (I + delta C_t)^{-1} with delta =
SNR_s - SNR_t if x_0 given x_t is Gaussian; only its product with A is needed, which is taken in the
row space of A (exact where that space is invariant under C_t). The weights use psi as it is, so the
approximation costs efficiency, never correctness.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base._gaussian import (
    LOG_2PI,
    MOST_LOST,
    inverse_lower,
    log_normal_cholesky,
    lost_digits,
)
from smcdiff.base.module import static
from smcdiff.diffusion.laws import Conditioned, Mixture
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import LinearObservation, ReverseModel
from smcdiff.twists._singular import require_linear
from smcdiff.twists.base import Evaluation, Twist

_LEAST_DIGITS = 32.0


class _Prepared(NamedTuple):
    """The observation, its dense whitened operator and what depends on it alone."""

    observation: LinearObservation
    matrix: Float[Array, "m d"]
    gram_factor: Float[Array, "m m"]
    gram_inverse: Float[Array, "m m"]


class _Detail(NamedTuple):
    """The residual of the denoised mean, and A C_t."""

    residual: Float[Array, " m"]
    rows: Float[Array, "m d"]


@jax.jit
def _lost_digits(model: ReverseModel) -> Float[Array, ""]:
    """Of the twist at the highest noise, for a prior as wide in all directions as on average."""
    matrix = model.problem.linear_observation().operator.as_matrix()
    joint = model.problem.prior.average_spread(model.first) * (matrix @ matrix.T)
    return lost_digits(jnp.linalg.cholesky(joint + jnp.eye(joint.shape[0], dtype=joint.dtype)))


def _positive(matrix: Float[Array, "m m"], model: ReverseModel) -> Float[Array, "m m"]:
    """The nearest positive semi-definite matrix: a network's Jacobian need not give one."""
    symmetric = 0.5 * (matrix + matrix.T)
    if model.problem.prior.has_exact_denoiser:
        return symmetric  # a true covariance; the eigenvalues would cost more than all the rest
    values, vectors = jnp.linalg.eigh(symmetric)
    return (vectors * jnp.maximum(values, 0.0)[None]) @ vectors.T


class MomentMatched(Twist):
    """The moment-matched twist, with d_y vector-Jacobian products of the network; see the module.

    Follows Boys et al. (2023) and Rozet et al. (2024). Exact for Gaussian priors.

    Attributes:
        max_observations: largest d_y accepted.
    """

    max_observations: int = static(default=64)
    conditions: ClassVar[bool] = True

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` where the observation is not linear-Gaussian or too large."""
        problem = model.problem
        require_linear(problem, "twists.MomentMatched")
        if problem.num_observations > self.max_observations:
            raise InputError(
                f"{problem.num_observations} observations need as many vector-Jacobian products per"
                f" step, above max_observations={self.max_observations} of twists.MomentMatched;"
                " raise it, or use proposals.KrylovMomentMatched() or Twisted()"
            )
        if problem.num_observations > 1 and _lost_digits(model) > MOST_LOST:
            raise InputError(
                "the prior is so wide beside the noise, and the observations overlap"
                f" so much, that densities lose their digits in {jnp.result_type(float)}; call"
                " jax.config.update('jax_enable_x64', True), or use proposals.Twisted()"
            )

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> _Prepared:
        """The dense whitened operator."""
        observation = model.problem.linear_observation()
        matrix = observation.operator.as_matrix()
        gram = matrix @ matrix.T
        # Masked rows are zero and repeated rows make the Gram matrix singular.
        ridge = 1e-6 * jnp.maximum(jnp.max(jnp.diagonal(gram)), 1e-30)
        factor = jnp.linalg.cholesky(gram + ridge * jnp.eye(gram.shape[0], dtype=gram.dtype))
        return _Prepared(observation, matrix, factor, inverse_lower(factor))

    @staticmethod
    def _covariance_rows(
        model: ReverseModel, prepared: _Prepared, x: Float[Array, " d"], t: Level
    ) -> tuple[Float[Array, " d"], _Detail]:
        """m, and A C_t by one vector-Jacobian product per row, or in closed form if Gaussian."""

        def residual_and_mean(x):
            denoised = model.denoise(x, t)
            return prepared.observation.residual(model.event(denoised)), denoised

        rows = model.problem.prior.posterior_covariance_times(prepared.matrix, t)
        if rows is not None:
            residual, denoised = residual_and_mean(x)
            return denoised, _Detail(residual, rows)
        residual, pullback, denoised = jax.vjp(residual_and_mean, x, has_aux=True)
        basis = jnp.eye(residual.shape[0], dtype=residual.dtype)
        (jacobian,) = jax.vmap(pullback)(basis)
        return denoised, _Detail(residual, -(t.sigma**2 / t.alpha) * jacobian)

    def evaluate(
        self, model: ReverseModel, prepared: _Prepared, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The moment-matched twist."""
        denoised, detail = self._covariance_rows(model, prepared, x, t)
        size = detail.residual.shape[0]
        inner = _positive(detail.rows @ prepared.matrix.T, model)
        joint = _unit_noise(model, inner) + inner
        # The normaliser of the likelihood holds the factor (2 pi)^(m/2) already.
        log_normal = log_normal_cholesky(detail.residual, jnp.linalg.cholesky(joint))
        constant = prepared.observation.log_constant + 0.5 * size * LOG_2PI
        return Evaluation(constant + log_normal, denoised, detail)

    def condition(
        self,
        transition: Mixture,
        model: ReverseModel,
        prepared: _Prepared,
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Conditioned:
        """The reverse kernel conditioned on the linearised twist."""
        matrix, noise = _linearise(model, prepared, evaluation.detail, t, s)
        if model.problem.varies:
            variances = jnp.sum(transition.covariance_times(matrix) * matrix[None], axis=-1)
            excess = jnp.maximum(_least_noise(variances) - 1.0, 0.0)
            noise = noise + excess * jnp.eye(noise.shape[0], dtype=noise.dtype)
        return Conditioned.of(transition, matrix, evaluation.detail.residual, noise)


def _unit_noise(model: ReverseModel, inner: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The noise beside A C A', whitened.

    `MomentMatched.check` has seen to it that it is not lost in rounding; unknown parameters may
    still make it so, and are then given what can be computed: any positive function is a twist.
    """
    identity = jnp.eye(inner.shape[0], dtype=inner.dtype)
    if not model.problem.varies:
        return identity
    return jnp.maximum(1.0, _least_noise(jnp.diagonal(inner))) * identity


def _least_noise(variances: Float[Array, "..."]) -> Float[Array, ""]:
    """The noise that is not lost beside what the prior contributes to each observation."""
    return _LEAST_DIGITS * jnp.finfo(variances.dtype).eps * jnp.max(variances)


def _linearise(
    model: ReverseModel, prepared: _Prepared, detail: _Detail, t: Level, s: Level
) -> tuple[Float[Array, "m d"], Float[Array, "m m"]]:
    """H and I + A C_s A' of the twist at the next level."""
    is_last = s.is_clean  # there psi_0 is the likelihood, linear in x_0
    identity = jnp.eye(detail.residual.shape[0], dtype=detail.residual.dtype)
    rows = model.problem.prior.posterior_covariance_times(prepared.matrix, s)
    if rows is not None:
        inner = _positive(rows @ prepared.matrix.T, model)
    else:
        # With L L' = A A': A C_s = L (I + delta C) ^-1 L^-1 A C_t, C = L^-1 A C_t A' L^-T.
        factor, inverse = prepared.gram_factor, prepared.gram_inverse
        core = _positive(inverse @ (detail.rows @ prepared.matrix.T) @ inverse.T, model)
        # At the last step delta is infinite; its linearisation is not used.
        delta = jnp.where(is_last, 1.0, jnp.exp(s.log_snr) - jnp.exp(t.log_snr))
        shrink = inverse_lower(jnp.linalg.cholesky(identity + delta * core))
        shrink = shrink.T @ shrink
        rows = (factor @ shrink @ inverse) @ detail.rows
        core = shrink @ core
        inner = factor @ (0.5 * (core + core.T)) @ factor.T
    slope = jnp.where(is_last, 1.0, s.alpha / jnp.where(is_last, 1.0, s.sigma**2))
    matrix = jnp.where(is_last, prepared.matrix, slope * rows)
    inner = jnp.where(is_last, 0.0, inner)
    return matrix, _unit_noise(model, inner) + inner
