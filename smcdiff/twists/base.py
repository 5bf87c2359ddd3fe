"""What a twist is: a guess psi_t(x_t) of p(y given x_t), with psi_0 = p(y given x_0).

Any positive function of x_t makes consistent weights, as long as the numerator of one step and the
denominator of the next are the same one; a better guess makes a larger ESS. A proposal holds a
twist, and may take any that it can use:

* every twist has a value, by which draws are weighed, and a gradient, by which `Twisted` tilts;
* a `MeanTwist` is a function of x_t and of its denoised mean, so that a proposal that has the mean
  already needs no second evaluation of the network;
* one that says what it is going to be at the next level (``conditions``) can be conditioned on.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module
from smcdiff.diffusion.laws import Law, Mixture
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel


class Evaluation(NamedTuple):
    """What was found at x_t by one evaluation of the network; it travels with the particle.

    Attributes:
        log_twist: log psi_t(x_t).
        denoised: m(x_t), flat, where twist or kernel need it.
        detail: what else the next draw needs of that evaluation, a pytree of arrays.
    """

    log_twist: Float[Array, ""]
    denoised: Float[Array, " d"] | None
    detail: Any = None


class Twist(Module):
    """Base class of twists.

    Attributes:
        takes_exact: whether an observation without noise can be used.
        conditions: whether `condition` is defined.
    """

    takes_exact: ClassVar[bool] = False
    conditions: ClassVar[bool] = False

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError``, before the run, where this twist does not fit the problem."""

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """What all particles of a chain share (a pytree); computed once per run."""
        return None

    def adapt(self, model: ReverseModel, prepared: Any) -> Any:
        """What was prepared, for another value of the model's unknown parameters.

        Called for each particle and each value that is tried: a twist of which little depends on
        the parameters does better than to prepare again.
        """
        return self.prepare(jax.random.key(0), model)

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """Log psi_t(x) and what came with it: at most one network evaluation."""
        raise NotImplementedError(f"{type(self).__name__} must define evaluate")

    def widened_by(self, model: ReverseModel, prepared: Any, t: Level) -> Float[Array, " m"] | None:
        """What the twist adds to the variances of a Gaussian observation's whitened entries.

        Where it is the likelihood at the denoised mean with its noise widened, entry by entry; else
        None.
        """
        return None

    def room(self, evaluation: Evaluation) -> Float[Array, ""]:
        """How far log psi_t lies below its largest value; infinite where that is not known.

        A tilt by the gradient is no longer than Polyak's step, which needs it.
        """
        return jnp.asarray(jnp.inf, evaluation.log_twist.dtype)

    def condition(
        self,
        transition: Mixture,
        model: ReverseModel,
        prepared: Any,
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Law:
        """The law q(x_s) ~ p(x_s given x_t) psi_s(x_s), as far as psi_s is known from x_t.

        Args:
            transition: p(x_s given x_t).
            model: the reverse model.
            prepared: of this twist.
            evaluation: at x_t.
            t: the level of x_t.
            s: the level of x_s.
        """
        raise InputError(f"{type(self).__name__} cannot be conditioned on; use proposals.Twisted")


class MeanTwist(Twist):
    """A twist that is a function of x_t and its denoised mean.

    Attributes:
        uses_denoised: whether the mean is needed at all.
    """

    uses_denoised: ClassVar[bool] = True

    def at(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
    ) -> Evaluation:
        """Log psi_t(x), given the denoised mean where the twist uses it: no network evaluation."""
        raise NotImplementedError(f"{type(self).__name__} must define at")

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """Log psi_t(x): one network evaluation, where twist or kernel need one."""
        if self.uses_denoised:
            return self.at(model, prepared, x, model.denoise(x, t), t)
        # No gradient goes through this one, so that the denoiser needs no derivative.
        denoised = model.denoise_for_kernel(jax.lax.stop_gradient(x), t)
        return self.at(model, prepared, x, denoised, t)
