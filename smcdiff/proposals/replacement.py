"""Replacement: observed entries overwritten at every step by a noised copy of them."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals._held import Held, Holding, log_normal
from smcdiff.proposals.base import Draw
from smcdiff.twists import Evaluation


class Replacement(Holding):
    """The replacement method: observed entries are overwritten at every step.

    The observed part of x_s is drawn afresh from N(alpha_s y, sigma_s^2 + alpha_s^2 sigma_y^2), the
    rest from the reverse kernel (Song et al. 2021, appendix I.2, where sigma_y = 0). A heuristic
    with weights off: the rest never learns whether it fits the observed part. With weights on the
    engine's importance weights make it consistent, with a variance that grows with the noise of y,
    since entries drawn afresh at every level lie as far apart; `SMCDiff` is the same idea with a
    shared path, and better. An exact observation is what it was published for. With weights on an
    entry whose noise is more than half the prior's scale is weighed and not overwritten, for such a
    draw would be far from any x_0.

    Cost: one network evaluation per particle and step.
    """

    masks_only: ClassVar[bool] = True

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Held:
        """The observed entries."""
        return Held.of(model)

    @staticmethod
    def _impute(
        key: PRNGKeyArray, held: Held, level: Level
    ) -> tuple[Float[Array, " r"], Float[Array, ""]]:
        """Noised copies of the observed entries, and their log density."""
        scale = jnp.sqrt(level.sigma**2 + (level.alpha * held.scale) ** 2)
        mean = level.alpha * held.system.data
        values = mean + scale * jax.random.normal(key, mean.shape, mean.dtype)
        # Clean entries of an exact observation are what they are.
        random = scale > 0.0
        return values, log_normal(values, mean, jnp.where(random, scale, 1.0), held.which & random)

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: Held) -> Draw:
        """The observed entries noised to the first level, the rest from the terminal law."""
        key_impute, key_rest = jax.random.split(key)
        values, log_q = self._impute(key_impute, prepared, model.first)
        law = prepared.pin(model.problem.prior.terminal(), values)
        x = law.sample(key_rest)
        return Draw(x, law.log_ratio(x) - log_q)

    def evaluate(
        self, model: ReverseModel, prepared: Held, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """No twist; one network evaluation."""
        return Evaluation(jnp.zeros((), x.dtype), model.denoise_for_kernel(x, t))

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: Held,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """The observed entries noised to the next level, the rest from the reverse kernel."""
        key_impute, key_rest = jax.random.split(key)
        values, log_q = self._impute(key_impute, prepared, s)
        transition = model.transition(x, evaluation.denoised, t, s)
        law, free = prepared.pin(transition, values), model.has_no_density(s)
        moved = jnp.where(free, transition.sample(key_rest), law.sample(key_rest))
        return Draw(moved, jnp.where(free, 0.0, law.log_ratio(moved) - log_q))

    def final(self, model: ReverseModel, prepared: Held, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The log likelihood; of an exact observation the change of variables from x to y."""
        if model.problem.is_noise_free:
            return -prepared.system.log_volume
        return model.log_likelihood(x)
