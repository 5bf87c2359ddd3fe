"""The likelihood of the denoised mean, made as unsure as x_0 given x_t is wide.

At the cost of more evaluations of the likelihood and none of the network:

* a linear-Gaussian observation has its noise widened, ``sigma_y^2 + spread_t |a_i|^2`` for row a_i
  of the operator, which is the average of p(y_i given x_0) over N(m, spread_t I);
* a Gaussian one of a nonlinear mean, with few entries, has its mean linearised at m, unless x has
  few dimensions and fewer than there are entries;
* any other is tempered by how far its log likelihood varies over fixed points of N(m, spread_t I);
  see `smcdiff.twists._tempering`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import static
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.operators import Scaled
from smcdiff.problem import LinearObservation, ReverseModel
from smcdiff.twists._tempering import FEW_TERMS, Tempering, as_a_whole
from smcdiff.twists.base import Evaluation, MeanTwist

NUM_POINTS = 32
"""Of a tempered twist; with 8 the log evidence was off twice as far."""
_NUM_PROBES = 64


class Widening(NamedTuple):
    """A linear observation, whitened, and the squared norms of its operator's rows.

    Of an operator that was recognised the norms are those of its rows before they are whitened,
    which do not depend on the noise.
    """

    observation: LinearObservation
    unit_norms: Float[Array, " m"]

    @classmethod
    def of(cls, model: ReverseModel) -> Widening:
        """Of a linear problem.

        The norms are estimated with Rademacher probes (mean of (A z)_i^2), which is exact for rows
        with one non-zero entry and needs no dense matrix.
        """
        observation = model.problem.linear_observation()
        operator = observation.operator
        operator = operator.operator if isinstance(operator, Scaled) else operator
        shape = _NUM_PROBES, *model.problem.event_shape
        probes = jax.random.rademacher(jax.random.key(0), shape, jnp.result_type(float))
        return cls(observation, jnp.mean(jax.vmap(operator)(probes) ** 2, axis=0))

    def with_noise_of(self, model: ReverseModel) -> Widening:
        """Of the same problem at another value of its parameters."""
        if model.problem.recognised is None:
            return Widening.of(model)
        return Widening(model.problem.linear_observation(), self.unit_norms)

    @property
    def row_norms(self) -> Float[Array, " m"]:
        """Squared norms of the whitened rows."""
        operator = self.observation.operator
        factor = operator.factor if isinstance(operator, Scaled) else jnp.ones(())
        return factor**2 * self.unit_norms


class LocalWidening(NamedTuple):
    """Marks a twist that is widened by the slope of a nonlinear mean where it is evaluated."""


class Widened(MeanTwist):
    """psi_t = p(y given x_0) averaged over what x_0 may still be about m(x_t); see the module.

    Cost: where the twist is tempered, ``num_points + 1`` evaluations of the likelihood and as many
    of its gradient, and their memory (``batch_size`` of `smcdiff.SMC` bounds it); and once per run
    some hundreds to find the likelihood's largest value.

    Attributes:
        num_points: points about m(x_t) of a tempered twist; even.
    """

    num_points: int = static(default=NUM_POINTS)

    def __post_init__(self):
        if self.num_points < 2 or self.num_points % 2:
            raise InputError(
                f"twists.Widened: num_points is {self.num_points}; it must be even, 2 or more"
            )

    def prepare(
        self, key: PRNGKeyArray, model: ReverseModel
    ) -> Widening | LocalWidening | Tempering:
        """What is known of the likelihood once and for all."""
        problem = model.problem
        if problem.is_linear:
            return Widening.of(model)
        few = problem.num_observations <= FEW_TERMS
        if problem.is_gaussian and few and not as_a_whole(model, problem.num_observations):
            return LocalWidening()
        return Tempering.of(key, model, self.num_points)

    def adapt(
        self, model: ReverseModel, prepared: Widening | LocalWidening | Tempering
    ) -> Widening | LocalWidening | Tempering:
        """With the noise, or the largest likelihood, that the parameters make."""
        if isinstance(prepared, Widening):
            return prepared.with_noise_of(model)
        return prepared.adapt(model) if isinstance(prepared, Tempering) else prepared

    def at(
        self,
        model: ReverseModel,
        prepared: Widening | LocalWidening | Tempering,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"],
        t: Level,
    ) -> Evaluation:
        """The widened log likelihood; its detail is the room."""
        spread = model.problem.prior.spread(t)
        if isinstance(prepared, Tempering):
            value = prepared.log_twist(model, denoised, spread)
            return Evaluation(value, denoised, jnp.asarray(jnp.inf, value.dtype))
        if isinstance(prepared, LocalWidening):
            value, room = _local_average(model, denoised, spread)
            return Evaluation(value, denoised, room)
        variances = 1.0 + spread * prepared.row_norms
        residual = prepared.observation.residual(model.event(denoised))
        room = 0.5 * jnp.sum(residual**2 / variances)
        constant = prepared.observation.log_constant - 0.5 * jnp.sum(jnp.log(variances))
        return Evaluation(constant - room, denoised, room)

    def widened_by(
        self, model: ReverseModel, prepared: Widening | LocalWidening | Tempering, t: Level
    ) -> Float[Array, " m"] | None:
        """The spread seen by each entry, of a linear observation."""
        if not isinstance(prepared, Widening) or not model.problem.is_gaussian:
            return None
        variances = model.problem.prior.spread(t) * prepared.row_norms
        recognised = model.problem.recognised
        if recognised is None:
            return variances
        return jnp.zeros(model.problem.num_observations).at[recognised.rows].set(variances)

    def room(self, evaluation: Evaluation) -> Float[Array, ""]:
        """How far the twist lies below its value where nothing misfits; infinite if tempered."""
        return evaluation.detail


def _local_average(
    model: ReverseModel, denoised: Float[Array, " d"], spread: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The widened twist of a Gaussian observation whose mean is linearised at the denoised mean."""

    def whitened(x):
        return model.problem.observe_gaussian(model.event(x)).whitened

    observation = model.problem.observe_gaussian(model.event(denoised))
    # Held fixed in gradients, as in Gauss-Newton: no second derivatives of the mean.
    slopes = jax.jacrev(whitened)(denoised)
    variances = 1.0 + spread * jax.lax.stop_gradient(jnp.sum(slopes**2, axis=1))
    room = 0.5 * jnp.sum(observation.whitened**2 / variances)
    return observation.log_normaliser - 0.5 * jnp.sum(jnp.log(variances)) - room, room
