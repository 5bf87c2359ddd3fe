"""FK-steering: any draws, weighed by a potential of the rewards on a particle's way."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module, static
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals._wrapped import Wrapped
from smcdiff.proposals.base import Draw, Proposal
from smcdiff.proposals.bootstrap import Bootstrap
from smcdiff.twists import Evaluation, Likelihood


class Potential(Module):
    """What the rewards seen so far are worth: the base class of `Difference`, `Max` and `Sum`.

    Attributes:
        start: what is kept before the first reward.
    """

    start: ClassVar[float] = 0.0

    def add(
        self, reward: Float[Array, ""], kept: Float[Array, ""], log_product: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """One potential more.

        Args:
            reward: r_t, the newest.
            kept: of the rewards before it.
            log_product: of the potentials before it.

        Returns:
            What is kept, and the log of the product of all potentials.
        """
        raise NotImplementedError(f"{type(self).__name__} must define add")


class Difference(Potential):
    """G_t = exp(r_t - r_s), s the level before: the product is that of a twist, exp(r_t)."""

    def add(
        self, reward: Float[Array, ""], kept: Float[Array, ""], log_product: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The newest reward alone."""
        return kept, reward


class Max(Potential):
    """G_t = exp(max r) over the levels so far."""

    start: ClassVar[float] = -jnp.inf

    def add(
        self, reward: Float[Array, ""], kept: Float[Array, ""], log_product: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The largest, and the sum of all that were the largest."""
        largest = jnp.maximum(reward, kept)
        return largest, log_product + largest


class Sum(Potential):
    """G_t = exp(sum r) over the levels so far."""

    def add(
        self, reward: Float[Array, ""], kept: Float[Array, ""], log_product: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The sum, and the sum of all sums."""
        total = kept + reward
        return total, log_product + total


class _Path(NamedTuple):
    """What a particle remembers of its way.

    Attributes:
        reward: of where it is.
        kept: by the potential.
        detail: of the proposal that is steered.
    """

    reward: Float[Array, ""]
    kept: Float[Array, ""]
    detail: Any


class FKSteering(Wrapped):
    """The draws of another proposal, weighed by potentials of rewards (Singhal et al. 2025).

    The reward r_t is the log twist of the proposal that is steered, and at the end
    log p(y given x_0): with ``Bootstrap(twist=twists.Likelihood())``, the default, r_t is the log
    likelihood of the denoised mean. The last potential is exp(r_0) over the product of all others,
    so that with any of them the target is what the model declares. Consistent, though with `Max`
    and `Sum` the last weights have to undo what has been added up on the way.

    Not for unknown parameters, nor for `smcdiff.ParticleGibbs`: a state's weight depends on the way
    to it. Cost: that of the proposal.

    Attributes:
        proposal: what draws, for example ``ClassifierFree(given, 3.0, twist=twists.Likelihood())``.
        potential: `Difference`, `Max` or `Sum`.
        every: levels from one potential to the next, the first at the highest noise. Published
            settings have four or five potentials in all.
    """

    proposal: Proposal = dataclasses.field(default_factory=lambda: Bootstrap(twist=Likelihood()))
    potential: Potential = Max()
    every: int = static(default=20)
    follows_path: ClassVar[bool] = True

    def __post_init__(self):
        if not isinstance(self.potential, Potential):
            raise InputError(
                f"FKSteering: the potential is {self.potential!r}; give proposals.Difference(),"
                " Max() or Sum()"
            )
        if self.every < 1:
            raise InputError(f"FKSteering: every is {self.every}; it must be at least 1")

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` where the proposal within does not fit, or weighs by more."""
        super().check(model)
        if isinstance(self.proposal, Wrapped):
            raise InputError(
                f"FKSteering: the weights of {type(self.proposal).__name__} go by its own twist;"
                " steer the proposal within it"
            )

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """That of the proposal, whose log twist is the reward."""
        found = self.proposal.evaluate(model, prepared, x, t)
        kept = jnp.full_like(found.log_twist, self.potential.start)
        return found._replace(detail=_Path(found.log_twist, kept, found.detail))

    def follow(self, evaluation: Evaluation, before: Evaluation, t: Level) -> Evaluation:
        """The log of the product of all potentials so far, in the place of the reward."""
        new, old = evaluation.detail, before.detail
        kept = jnp.where(t.index == 0, new.kept, old.kept)  # before the first there is a blank
        added, log_product = self.potential.add(new.reward, kept, before.log_twist)
        counts = t.index % self.every == 0
        return evaluation._replace(
            log_twist=jnp.where(counts, log_product, before.log_twist),
            detail=new._replace(kept=jnp.where(counts, added, kept)),
        )

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """As the proposal."""
        reward, _, detail = evaluation.detail
        inner = evaluation._replace(log_twist=reward, detail=detail)
        return self.proposal.propose(key, model, prepared, x, inner, t, s)
