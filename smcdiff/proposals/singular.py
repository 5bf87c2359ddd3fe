"""Singular coordinates of a linear-Gaussian observation, and Gaussian draws in them.

The whitened operator is U diag(s) V'. In coordinates z = U' r the observation is z_i = s_i (V' x)_i
plus standard normal noise; rows of the observation outside the range of U tell nothing of x. An
exact observation has no noise, and then z_i with s_i = 0 is not there: the evidence is the density
of U' A x_0 in the coordinates with s_i > 0, at U' y; that is, with respect to Lebesgue measure on
the range of A, and for a full-row-rank A the Lebesgue density of y.

A NumPyro model shows its mean and not the operator in it, so the decomposition is taken here, of
the whitened residual, and not from `smcdiff.operators`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smcdiff.base.gaussian import LOG_2PI
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.operators.base import LARGEST_DENSE
from smcdiff.problem import Problem
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.linear import require_linear


class SingularSystem(NamedTuple):
    """The thin singular value decomposition of the whitened operator; r = min(d_y, d).

    Attributes:
        left: (m, r) columns of U.
        values: (r,) singular values, largest first; tiny ones are zero.
        right: (r, d) rows of V'.
        observed: (r,) the whitened observation, U' r(0).
        noise: (r,) variances of its noise: 1; of an exact observation 0, but 1 where s is zero, for
            there is nothing to be divided.
        log_constant: c in log p(y given x) = c - |observed - s V' x|^2 / 2; of an exact observation
            the constant of as many normal densities as there are s > 0.
    """

    left: Float[Array, "m r"]
    values: Float[Array, " r"]
    right: Float[Array, "r d"]
    observed: Float[Array, " r"]
    noise: Float[Array, " r"]
    log_constant: Float[Array, ""]

    @property
    def seen(self) -> Bool[Array, " r"]:
        """Which coordinates the operator sees at all."""
        return self.values > 0.0

    @property
    def data(self) -> Float[Array, " r"]:
        """What the observation says of V' x; 0 in coordinates that are not seen."""
        seen = self.seen
        return jnp.where(seen, self.observed / jnp.where(seen, self.values, 1.0), 0.0)

    @property
    def log_volume(self) -> Float[Array, ""]:
        """Log of the product of the singular values that are not zero."""
        return jnp.sum(jnp.log(jnp.where(self.seen, self.values, 1.0)))

    def project(self, x: Float[Array, " d"]) -> Float[Array, " r"]:
        """What the operator sees of x: s V' x."""
        return self.values * (self.right @ x)

    def adjoint(self, z: Float[Array, " r"]) -> Float[Array, " d"]:
        """The adjoint of `project`: V s z."""
        return (self.values * z) @ self.right


def can_decompose(problem: Problem) -> bool:
    """Whether the singular value decomposition of the observation's operator is affordable."""
    return min(math.prod(problem.event_shape), problem.num_observations) <= LARGEST_DENSE


def require_singular(model: ReverseModel, name: str) -> None:
    """Raises ``InputError`` unless the observation is linear-Gaussian and its SVD affordable."""
    require_linear(model.problem, name)
    if not can_decompose(model.problem):
        fewer = min(model.size, model.problem.num_observations)
        remedy = "use proposals.KrylovMomentMatched() or proposals.Twisted()"
        if model.problem.noise_free:
            remedy = "use proposals.SMCDiff() for a mask, or give the observation noise"
        raise InputError(
            f"{name} decomposes the operator, which is affordable up to {LARGEST_DENSE}"
            f" observations, not {fewer}; {remedy}"
        )


def singular_system(model: ReverseModel) -> SingularSystem:
    """Decomposes the operator; once a run, since nothing in it depends on particle or chain."""
    origin = jnp.zeros((model.size,))
    left, values, right = jnp.linalg.svd(model.problem.matrix(), full_matrices=False)
    cutoff = 1e-6 * jnp.maximum(jnp.max(values), 1e-30)
    kept = values > cutoff
    values = jnp.where(kept, values, 0.0)
    observed = left.T @ model.residual(origin)
    if model.problem.noise_free:
        # Observed values that the operator cannot reach were refused by the reader.
        observed, noise = jnp.where(kept, observed, 0.0), jnp.where(kept, 0.0, 1.0)
        return SingularSystem(left, values, right, observed, noise, -0.5 * jnp.sum(kept) * LOG_2PI)
    # At a solution the residual is small, and what is left of it is outside the range of U.
    solution = right.T @ jnp.where(kept, observed / jnp.where(kept, values, 1.0), 0.0)
    rest = model.residual(solution)
    outside = rest - left @ (left.T @ rest)
    constant = model.problem.log_normaliser() - 0.5 * jnp.sum(outside**2)
    return SingularSystem(left, values, right, observed, jnp.ones_like(values), constant)


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
    variances = system.noise + (system.values * level.sigma / level.alpha) ** 2
    return PseudoObservation(system.observed, 1.0 / level.alpha, variances)


Draw = tuple[Float[Array, " d"], Float[Array, ""]]
"""A draw, and log p - log q there."""


def end_exactly(
    key: PRNGKeyArray,
    model: ReverseModel,
    system: SingularSystem,
    x: Float[Array, " d"],
    denoised: Float[Array, " d"] | None,
    step: Array,
    move: Callable[[], Draw],
) -> Draw:
    """``move()``, but the last step to an exact observation is the reverse kernel given it.

    The log ratio of that step is the log density of A x_0 at y under the reverse kernel.
    """
    if not model.problem.noise_free:
        return move()

    def last() -> Draw:
        transition = model.transition(x, denoised, step)
        draw, log_density = transition.sample_pinned(key, system.right, system.seen, system.data)
        return draw, log_density - system.log_volume

    return jax.lax.cond(model.is_last(step), last, move)


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
    as twist; the last step is the reverse kernel's own, given the observation where that is exact.
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
        is_last = model.is_last(step)
        log_ratio = jnp.where(is_last, 0.0, transition.log_prob(moved) - log_q)
        moved = jnp.where(is_last, transition.sample(key), moved)
        return end_exactly(key, model, shared, x, guide, step, lambda: (moved, log_ratio))
