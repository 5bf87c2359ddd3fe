"""Moment-matched proposals: the conditional of the locally linear-Gaussian model.

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

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base.gaussian import (
    LOG_2PI,
    MOST_LOST,
    inverse_lower,
    log_normal_cholesky,
    lost_digits,
)
from smcdiff.base.module import static
from smcdiff.errors import InputError
from smcdiff.priors.analytic import AnalyticPrior
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.linear import require_linear


class _Shared(NamedTuple):
    """The dense whitened operator and what depends on it alone."""

    matrix: Float[Array, "m d"]
    gram_factor: Float[Array, "m m"]
    gram_inverse: Float[Array, "m m"]
    log_normaliser: Float[Array, ""]


class _Guide(NamedTuple):
    """The evaluation at x_t: denoised mean, residual there, and A C_t."""

    denoised: Float[Array, " d"]
    residual: Float[Array, " m"]
    rows: Float[Array, "m d"]


@jax.jit
def _lost_digits(model: ReverseModel) -> Float[Array, ""]:
    """Of the twist at the highest noise, for a prior as wide in all directions as on average."""
    matrix = model.problem.matrix()
    joint = model.problem.prior.average_spread(model.level(0)) * (matrix @ matrix.T)
    return lost_digits(jnp.linalg.cholesky(joint + jnp.eye(joint.shape[0], dtype=joint.dtype)))


def _positive(matrix: Float[Array, "m m"], model: ReverseModel) -> Float[Array, "m m"]:
    """The nearest positive semi-definite matrix: a network's Jacobian need not give one."""
    symmetric = 0.5 * (matrix + matrix.T)
    if isinstance(model.problem.prior, AnalyticPrior):
        return symmetric  # a true covariance; the eigenvalues would cost more than all the rest
    values, vectors = jnp.linalg.eigh(symmetric)
    return (vectors * jnp.maximum(values, 0.0)) @ vectors.T


class MomentMatched(Proposal):
    """Conditional of the locally linear-Gaussian model, with the Tweedie covariance.

    Consistent, and exact for Gaussian priors with their exact kernel (constant weights). The twist
    follows Boys et al. (2023) and Rozet et al. (2024); using it as twist and proposal of a particle
    filter corrects what the Gaussian approximation leaves out.

    Cost: one network evaluation and d_y vector-Jacobian products a particle and step, and dense
    algebra in d_y x d_y.

    Attributes:
        max_observations: largest d_y accepted.
    """

    max_observations: int = static(default=64)

    def check(self, model):
        """Raises ``InputError`` where the observation is not linear-Gaussian or too large."""
        problem = model.problem
        require_linear(problem, "MomentMatched")
        if problem.num_observations > self.max_observations:
            raise InputError(
                f"MomentMatched: {problem.num_observations} observations need as many"
                f" vector-Jacobian products a step, above max_observations={self.max_observations};"
                " use proposals.KrylovMomentMatched() or Twisted(), or raise max_observations"
            )

        if problem.num_observations > 1 and _lost_digits(model) > MOST_LOST:
            raise InputError(
                "MomentMatched: the prior is so wide beside the noise, and the observations overlap"
                f" so much, that densities lose their digits in {jnp.result_type(float)}; call"
                " jax.config.update('jax_enable_x64', True), or use proposals.Twisted()"
            )

    def prepare(self, key, model):
        """The dense whitened operator."""
        matrix = model.problem.matrix()
        gram = matrix @ matrix.T
        # Masked rows are zero and repeated rows make the Gram matrix singular.
        ridge = 1e-6 * jnp.maximum(jnp.max(jnp.diagonal(gram)), 1e-30)
        factor = jnp.linalg.cholesky(gram + ridge * jnp.eye(gram.shape[0], dtype=gram.dtype))
        return _Shared(matrix, factor, inverse_lower(factor), model.problem.log_normaliser())

    def _covariance_rows(self, model: ReverseModel, shared: _Shared, x, t) -> _Guide:
        """A C_t by one vector-Jacobian product a row, or in closed form for a Gaussian prior."""

        def residual_and_mean(x):
            denoised = model.denoise(x, t)
            return model.residual(denoised), denoised

        rows = model.problem.prior.posterior_covariance_times(shared.matrix, t)
        if rows is not None:
            residual, denoised = residual_and_mean(x)
            return _Guide(denoised, residual, rows)
        residual, pullback, denoised = jax.vjp(residual_and_mean, x, has_aux=True)
        basis = jnp.eye(residual.shape[0], dtype=residual.dtype)
        (jacobian,) = jax.vmap(pullback)(basis)
        return _Guide(denoised, residual, -(t.sigma**2 / t.alpha) * jacobian)

    def guide(self, model, shared, x, step):
        """The moment-matched twist."""
        guide = self._covariance_rows(model, shared, x, model.level(step))
        size = guide.residual.shape[0]
        joint = jnp.eye(size, dtype=x.dtype) + _positive(guide.rows @ shared.matrix.T, model)
        # The normaliser of the likelihood holds the factor (2 pi)^(m/2) already.
        log_normal = log_normal_cholesky(guide.residual, jnp.linalg.cholesky(joint))
        return shared.log_normaliser + log_normal + 0.5 * size * LOG_2PI, guide

    def _linearise(self, model: ReverseModel, shared: _Shared, guide: _Guide, step):
        """H and I + A C_s A' of the twist at the next level."""
        t, s = model.level(step), model.level(step + 1)
        is_last = model.is_last(step)  # there psi_0 is the likelihood, linear in x_0
        identity = jnp.eye(guide.residual.shape[0], dtype=guide.residual.dtype)
        rows = model.problem.prior.posterior_covariance_times(shared.matrix, s)
        if rows is not None:
            inner = _positive(rows @ shared.matrix.T, model)
        else:
            # With L L' = A A': A C_s = L (I + delta C) ^-1 L^-1 A C_t, C = L^-1 A C_t A' L^-T.
            factor, inverse = shared.gram_factor, shared.gram_inverse
            core = inverse @ (guide.rows @ shared.matrix.T) @ inverse.T
            core = _positive(core, model)
            # At the last step delta is infinite; its linearisation is not used.
            delta = jnp.where(is_last, 1.0, jnp.exp(s.log_snr) - jnp.exp(t.log_snr))
            shrink = inverse_lower(jnp.linalg.cholesky(identity + delta * core))
            shrink = shrink.T @ shrink
            rows = (factor @ shrink @ inverse) @ guide.rows
            core = shrink @ core
            inner = factor @ (0.5 * (core + core.T)) @ factor.T
        matrix = jnp.where(is_last, shared.matrix, s.alpha / s.sigma**2 * rows)
        return matrix, identity + jnp.where(is_last, 0.0, inner)

    def law(self, model, shared, x, guide, step):
        """The reverse kernel conditioned on the linearised twist."""
        transition = model.transition(x, guide.denoised, step)
        matrix, noise = self._linearise(model, shared, guide, step)
        return transition.conditioned(matrix, guide.residual, noise)
