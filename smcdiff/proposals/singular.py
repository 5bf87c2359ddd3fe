"""Singular coordinates of a linear-Gaussian observation, and Gaussian draws in them.

The whitened operator is U diag(s) V'. In coordinates z = U' r the observation is z_i = s_i (V' x)_i
plus standard normal noise; rows of the observation outside the range of U tell nothing of x.

A NumPyro model shows its mean and not the operator in it, so the decomposition is taken here, of
the whitened residual, and not from `smcdiff.operators`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.errors import InputError
from smcdiff.gaussian import LOG_2PI
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.linear import log_normaliser, require_linear
from smcdiff.schedules import Level

LARGEST = 4096
"""Observations or event entries, whichever are fewer, whose dense decomposition is affordable."""


class SingularSystem(NamedTuple):
    """The thin singular value decomposition of the whitened operator; r = min(d_y, d).

    Attributes:
        left: (m, r) columns of U.
        values: (r,) singular values, largest first; tiny ones are zero.
        right: (r, d) rows of V'.
        observed: (r,) the whitened observation, U' r(0).
        log_constant: c in log p(y given x) = c - |observed - s V' x|^2 / 2.
    """

    left: Float[Array, "m r"]
    values: Float[Array, " r"]
    right: Float[Array, "r d"]
    observed: Float[Array, " r"]
    log_constant: Float[Array, ""]

    def project(self, x: Float[Array, " d"]) -> Float[Array, " r"]:
        """What the operator sees of x: s V' x."""
        return self.values * (self.right @ x)

    def adjoint(self, z: Float[Array, " r"]) -> Float[Array, " d"]:
        """The adjoint of `project`: V s z."""
        return (self.values * z) @ self.right


def require_singular(model: ReverseModel, name: str) -> None:
    """Raises ``InputError`` unless the observation is linear-Gaussian and its SVD affordable."""
    require_linear(model.problem, name)
    fewer = min(model.size, model.problem.num_observations)
    if fewer > LARGEST:
        raise InputError(
            f"{name} decomposes the operator, which is affordable up to {LARGEST} observations, not"
            f" {fewer}; use proposals.KrylovMomentMatched() or proposals.Twisted()"
        )


def singular_system(model: ReverseModel) -> SingularSystem:
    """Decomposes the operator; once a run, since nothing in it depends on particle or chain."""
    origin = jnp.zeros((model.size,))
    matrix = -jax.jacrev(model.residual)(origin)
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    cutoff = 1e-6 * jnp.maximum(jnp.max(values), 1e-30)
    kept = values > cutoff
    values = jnp.where(kept, values, 0.0)
    observed = left.T @ model.residual(origin)
    # At a solution the residual is small, and what is left of it is outside the range of U.
    solution = right.T @ jnp.where(kept, observed / jnp.where(kept, values, 1.0), 0.0)
    rest = model.residual(solution)
    outside = rest - left @ (left.T @ rest)
    constant = log_normaliser(model, solution) - 0.5 * jnp.sum(outside**2)
    return SingularSystem(left, values, right, observed, constant)


class PseudoObservation(NamedTuple):
    """A Gaussian observation of x_t in singular coordinates: target = scale s V' x_t + noise.

    Attributes:
        target: (r,).
        scale: scalar.
        variances: (r,) of the noise.
    """

    target: Float[Array, " r"]
    scale: Float[Array, ""]
    variances: Float[Array, " r"]

    def log_density(self, system: SingularSystem, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log density at a state, with the likelihood's constant."""
        misfit = self.target - self.scale * system.project(x)
        terms = misfit**2 / self.variances + jnp.log(self.variances)
        return system.log_constant - 0.5 * jnp.sum(terms)


def noised_observation(system: SingularSystem, level: Level) -> PseudoObservation:
    """The observation as one of x_t / alpha_t, as if the prior were flat."""
    variances = 1.0 + (system.values * level.sigma / level.alpha) ** 2
    return PseudoObservation(system.observed, 1.0 / level.alpha, variances)


class SingularGaussian(NamedTuple):
    """A Gaussian whose covariance is diagonal in singular coordinates and isotropic elsewhere.

    Attributes:
        mean: (d,).
        scales: (r,) standard deviations of the singular coordinates.
        outer_scale: standard deviation of everything orthogonal to them.
    """

    mean: Float[Array, " d"]
    scales: Float[Array, " r"]
    outer_scale: Float[Array, ""]

    def sample(
        self, key: PRNGKeyArray, system: SingularSystem
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """A draw and its log density (infinite or NaN where a scale is zero)."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        inside = system.right.T @ ((self.scales - self.outer_scale) * (system.right @ noise))
        outer_rank = noise.shape[0] - self.scales.shape[0]
        # 0 log 0 would be NaN where every direction is a singular one.
        log_det = jnp.sum(jnp.log(self.scales))
        log_det += outer_rank * jnp.log(self.outer_scale) if outer_rank else 0.0
        log_q = -0.5 * jnp.sum(noise**2) - 0.5 * noise.shape[0] * LOG_2PI - log_det
        return self.mean + self.outer_scale * noise + inside, log_q


class SingularDraw(Proposal):
    """A Gaussian draw in singular coordinates, whatever the reverse kernel.

    With weights on the draws are weighed against the reverse kernel, with the noised observation
    as twist; the last step is the reverse kernel's own.
    """

    @abstractmethod
    def _first(self, model: ReverseModel, system: SingularSystem) -> SingularGaussian:
        """The law of x_T."""

    @abstractmethod
    def _next(self, model: ReverseModel, system, x, denoised, step) -> SingularGaussian:
        """The law of x_s given x_t."""

    def prepare(self, key, model):
        """The singular system of the operator."""
        return singular_system(model)

    def start(self, key, model, shared):
        """A draw of the first law; weighed against the terminal one."""
        x, log_q = self._first(model, shared).sample(key, shared)
        if not model.weighted:
            return x, jnp.zeros(())
        return x, model.problem.prior.terminal().log_prob(x) - log_q

    def guide(self, model, shared, x, step):
        """The noised observation's density where weights are on; one network evaluation."""
        level = model.level(step)
        denoised = model.denoise(x, level)
        if not model.weighted:
            return jnp.zeros(()), denoised
        return noised_observation(shared, level).log_density(shared, x), denoised

    def propose(self, key, model, shared, x, guide, step):
        """A draw of the next law."""
        moved, log_q = self._next(model, shared, x, guide, step).sample(key, shared)
        if not model.weighted:
            return moved, jnp.zeros(())
        transition = model.transition(x, guide, step)
        is_last = step == model.num_steps - 1
        log_ratio = jnp.where(is_last, 0.0, transition.log_prob(moved) - log_q)
        return jnp.where(is_last, transition.sample(key), moved), log_ratio
