"""A linear-Gaussian observation in the singular coordinates of its operator.

The whitened operator is U diag(s) V'. In coordinates z = U' r the observation is z_i = s_i (V' x)_i
plus standard normal noise; rows of the observation outside the range of U tell nothing of x. An
exact observation has no noise, and then z_i with s_i = 0 is not there: the evidence is the density
of U' A x_0 in the coordinates with s_i > 0, at U' y; that is, with respect to Lebesgue measure on
the range of A, and for a full-row-rank A the Lebesgue density of y.

The decomposition is the operator's own where it knows one, so that no matrix is made of a blur or a
mask of a large image; else a dense one is taken, up to `LARGEST_DENSE`.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from smcdiff.base._gaussian import LOG_2PI
from smcdiff.diffusion.laws import SingularCoordinates
from smcdiff.errors import InputError
from smcdiff.operators import LARGEST_DENSE, Reshape
from smcdiff.problem import Problem, ReverseModel

_CUTOFF = 1e-6
"""Of the largest singular value, below which one is zero."""


class SingularSystem(SingularCoordinates):
    """The observation in singular coordinates; r = min(d_y, d) or fewer.

    Attributes:
        observed: (r,) the whitened observation, U' r(0).
        noise: (r,) variances of its noise: 1; of an exact observation 0, but 1 where s is zero, for
            there is nothing to be divided.
        log_constant: c in log p(y given x) = c - |observed - s V' x|^2 / 2; of an exact observation
            the constant of as many normal densities as there are s > 0.
    """

    observed: Float[Array, " r"]
    noise: Float[Array, " r"]
    log_constant: Float[Array, ""]

    @classmethod
    def of(cls, model: ReverseModel) -> SingularSystem:
        """Decomposes the operator; once per run, since nothing depends on particle or chain."""
        observation = model.problem.linear_observation()
        svd = observation.operator.svd()
        kept = svd.values > _CUTOFF * jnp.maximum(jnp.max(svd.values), 1e-30)
        values = jnp.where(kept, svd.values, 0.0)
        directions = svd.right @ Reshape((model.size,), model.problem.event_shape)
        observed = svd.left.adjoint(observation.target)
        if observation.noise_free:
            # Observed values that the operator cannot reach were refused by the reader.
            constant = -0.5 * jnp.sum(kept) * LOG_2PI
            observed, noise = jnp.where(kept, observed, 0.0), jnp.where(kept, 0.0, 1.0)
            return cls(values, directions, observed, noise, constant)
        # At a solution the residual is small, and what is left of it is outside the range of U.
        solved = jnp.where(kept, observed / jnp.where(kept, values, 1.0), 0.0)
        rest = observation.residual(model.event(directions.adjoint(solved)))
        outside = rest - svd.left(svd.left.adjoint(rest))
        constant = observation.log_constant - 0.5 * jnp.sum(outside**2)
        return cls(values, directions, observed, jnp.ones_like(values), constant)

    @property
    def data(self) -> Float[Array, " r"]:
        """What the observation says of V' x; 0 in coordinates that are not seen."""
        seen = self.seen
        return jnp.where(seen, self.observed / jnp.where(seen, self.values, 1.0), 0.0)

    @property
    def log_volume(self) -> Float[Array, ""]:
        """Log of the product of the singular values that are not zero."""
        return jnp.sum(jnp.log(jnp.where(self.seen, self.values, 1.0)))

    def misfit(self, x: Float[Array, " d"]) -> Float[Array, " r"]:
        """What x leaves of the observation."""
        return self.observed - self.project(x)


def system_of(model: ReverseModel, prepared: Any) -> SingularSystem:
    """The singular system: what a twist has prepared, where that is one; else made now."""
    return prepared if isinstance(prepared, SingularSystem) else SingularSystem.of(model)


def require_linear(problem: Problem, name: str) -> None:
    """Raises ``InputError`` unless the observation is linear-Gaussian."""
    if not problem.is_linear:
        raise InputError(
            f"{name} needs an observation that is linear in site '{problem.site}' with Gaussian"
            " noise, and none was found; pass linear=True to SMC if it is, or use"
            " proposals.Twisted() or proposals.Bootstrap()"
        )


def can_decompose(problem: Problem) -> bool:
    """Whether a linear observation's operator knows its decomposition, or is small enough."""
    if min(problem.size, problem.num_observations) <= LARGEST_DENSE:
        return True
    return problem.linear_observation().operator.structured


def require_singular(model: ReverseModel, name: str) -> None:
    """Raises ``InputError`` unless the observation is linear-Gaussian and can be decomposed."""
    problem = model.problem
    require_linear(problem, name)
    if not can_decompose(problem):
        fewer = min(model.size, problem.num_observations)
        remedy = "use proposals.KrylovMomentMatched() or proposals.Twisted()"
        if problem.is_noise_free:
            remedy = "apply one of smcdiff.operators that does, or give the observation noise"
        raise InputError(
            f"{name} decomposes the operator, which knows no decomposition of its own; a dense one"
            f" is affordable up to {LARGEST_DENSE} observations, not {fewer}; {remedy}"
        )
