"""What a proposal is.

The particle filter targets ``p(x_{t:T}) psi_t(x_t)``: reverse kernels times a twist psi_t that
guesses p(y given x_t), with psi_0 = p(y given x_0). A proposal holds the twist and gives the law q
from which x_s is drawn; the weights follow,

    log w_s = log p(x_s | x_t) - log q(x_s | x_t) + log psi_s(x_s) - log psi_t(x_t),

so a new sampler is one new file here. The denoiser is called once per particle and step, in
``evaluate``; what the draw needs of that call travels with the particle.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module
from smcdiff.diffusion.laws import Law
from smcdiff.diffusion.schedules import Grid, Level, UniformLogSNR
from smcdiff.errors import InputError
from smcdiff.priors import Prior
from smcdiff.problem import ReverseModel
from smcdiff.twists import Evaluation, Flat, MeanTwist, Twist


class Draw(NamedTuple):
    """A draw of x, and log p(x) - log q(x) of the laws of model and proposal."""

    x: Float[Array, " d"]
    log_ratio: Float[Array, ""]


class Proposal(Module):
    """Base class of all proposals; the defaults are those of the bootstrap filter.

    A subclass defines `evaluate`, and `law` or `propose`. States are flat vectors; t is the level
    of a particle and s the next one, of less noise.

    Attributes:
        follows_path: whether a weight depends on the path of a particle, or of the observed entries
            that it is held to, so that p_s psi_s is not the law of the particles.
        masks_only: whether only single entries of x may be observed.
        takes_parameters: whether a model may have unknown parameters: then all that depends on them
            comes from `adapt` and from the model that the methods are handed.
        usual_size: particles per chain and chains, where nobody names them (the command line).
    """

    usual_size: ClassVar[tuple[int, int]] = (64, 4)
    follows_path: ClassVar[bool] = False
    masks_only: ClassVar[bool] = False
    takes_parameters: ClassVar[bool] = False

    def takes_exact(self, weighted: bool) -> bool:
        """Whether an observation without noise can be used, with weights on or off."""
        return False

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError``, before the run, where this proposal does not fit the problem."""

    def counts_chains_alike(self, model: ReverseModel) -> bool:
        """Whether chains differ by what is no evidence for or against their particles."""
        return False

    def default_grid(self, prior: Prior) -> Grid:
        """Where the steps of a weighted run lie if the user names no grid."""
        return UniformLogSNR()

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """What all particles of a chain share (a pytree); computed once per run."""
        return None

    def adapt(self, model: ReverseModel, prepared: Any) -> Any:
        """What was prepared, for the value of the unknown parameters that the model has now.

        Where `takes_parameters` is true; called for each particle and each value that is tried.
        """
        return prepared

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: Any) -> Draw:
        """x_T and log p_T(x_T) - log q_T(x_T)."""
        return Draw(model.problem.prior.terminal().sample(key), jnp.zeros(()))

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """Log psi_t(x) and what ``law`` or ``propose`` need: one network evaluation."""
        raise NotImplementedError(f"{type(self).__name__} must define evaluate")

    def follow(self, evaluation: Evaluation, before: Evaluation, t: Level) -> Evaluation:
        """What a particle takes with it from level t, where its weight depends on the way there.

        Args:
            evaluation: at t, as `evaluate` found it.
            before: that of the level before, zeros at the first one.
            t: the level, at which index 0 is the first.
        """
        return evaluation

    def widened_by(self, model: ReverseModel, prepared: Any, t: Level) -> Float[Array, " m"] | None:
        """As of the twist, see `smcdiff.twists.Twist.widened_by`: by it parameters may be drawn."""
        return None

    def log_twist(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Float[Array, ""]:
        """Log psi_t(x) alone: what unknown parameters are moved by."""
        return self.evaluate(model, prepared, x, t).log_twist

    def law(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Law | None:
        """The law q of x_s, where its ratio can be had at any x_s; else None."""
        return None

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
        """x_s, and log p(x_s given x_t) - log q(x_s given x_t); by default from `law`."""
        law = self.law(model, prepared, x, evaluation, t, s)
        if law is None:
            raise NotImplementedError(f"{type(self).__name__} must define law or propose")
        moved = law.sample(key)
        return Draw(moved, law.log_ratio(moved))

    def final(self, model: ReverseModel, prepared: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log psi_0(x): the log likelihood, unless the proposal has accounted for it already."""
        return model.log_likelihood(x)


class Steered(Proposal):
    """Base class of proposals whose twist says where to go, and by which they are weighed.

    Attributes:
        twist: the twist.
    """

    twist: Twist = dataclasses.field(kw_only=True)
    takes_parameters: ClassVar[bool] = True

    def takes_exact(self, weighted: bool) -> bool:
        """As the twist."""
        return self.twist.takes_exact

    def check(self, model: ReverseModel) -> None:
        """As the twist."""
        _check_twist(self, self.twist, model)

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """As the twist."""
        return self.twist.prepare(key, model)

    def adapt(self, model: ReverseModel, prepared: Any) -> Any:
        """As the twist."""
        return self.twist.adapt(model, prepared)

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """As the twist."""
        return self.twist.evaluate(model, prepared, x, t)


class Weighed(Proposal):
    """Base class of proposals that go their own way, by a twist weighed and not steered.

    With weights off the twist is not evaluated.

    Attributes:
        twist: a twist of the denoised mean, which these proposals have.
    """

    twist: MeanTwist = dataclasses.field(default=Flat(), kw_only=True)

    def __post_init__(self):
        if not isinstance(self.twist, MeanTwist):
            raise InputError(
                f"{type(self).__name__}: the twist is {self.twist!r}; it must be one of the"
                " denoised mean, for example twists.Widened() or twists.NoisedObservation()"
            )

    def check(self, model: ReverseModel) -> None:
        """As the twist, where it is used."""
        if model.weighted:
            _check_twist(self, self.twist, model)

    def prepare_twist(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """What the twist prepares, where it is used."""
        return self.twist.prepare(key, model) if model.weighted else None

    def weigh(
        self,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        denoised: Float[Array, " d"] | None,
        t: Level,
    ) -> Evaluation:
        """Log psi_t, given the denoised mean and what `prepare_twist` prepared."""
        twist = self.twist if model.weighted else Flat()
        return twist.at(model, prepared, x, denoised, t)


def _check_twist(proposal: Proposal, twist: Twist, model: ReverseModel) -> None:
    """The twist's own check, whose message then names the proposal."""
    try:
        twist.check(model)
    except InputError as error:
        raise InputError(f"{type(proposal).__name__}: {error}") from error


def check_fits(proposal: Proposal, model: ReverseModel) -> None:
    """Raises ``InputError``, before the run, where a proposal does not fit the problem.

    Args:
        proposal: the proposal, of which this is `Proposal.check` and what holds for all of them.
        model: the reverse model.

    Raises:
        InputError: unknown parameters or an observation that the proposal cannot use, an exact one
            that it divides by the noise of, or one whose last step has no density to weigh.
    """
    if model.problem.held is not None and not proposal.takes_parameters:
        raise InputError(
            f"{type(proposal).__name__}: the diffusion prior of site '{model.problem.site}' depends"
            f" on {list(model.problem.held.layout.names)}, and it prepares one problem for all"
            " particles; use proposals.Twisted(), MomentMatched() or Bootstrap()"
        )
    if model.problem.parameters is not None and not proposal.takes_parameters:
        raise InputError(
            f"{type(proposal).__name__}: sites {list(model.problem.parameter_names)} are unknown,"
            " and it holds particles to what their first values make of y; use"
            " proposals.MomentMatched(), Twisted() or Bootstrap(), or pass their values"
        )
    if model.problem.is_noise_free:
        _check_exact(proposal, model)
    proposal.check(model)


def _check_exact(proposal: Proposal, model: ReverseModel) -> None:
    name, site = type(proposal).__name__, model.problem.observed_sites[0]
    if not proposal.takes_exact(model.weighted):
        weights = " or weighted=False" if proposal.takes_exact(False) else ""
        raise InputError(
            f"{name}: site '{site}' is observed without noise (Delta), by which {name} divides;"
            f" use proposals.FPS(), MCGDiff(){weights}, or give the site noise (dist.Normal)"
        )
    if model.weighted and model.kernel.ends_in_dirac:
        raise InputError(
            f"{name}: site '{site}' is observed without noise (Delta), so that weights need a"
            f" density at the last step, and {type(model.kernel).__name__} ends in a Dirac; use"
            " kernels.AnalyticDPM(), for Gaussians and mixtures kernels.Exact(), or"
            " weighted=False"
        )


def unmoved(model: ReverseModel, s: Level, shift: Float[Array, " d"]) -> Float[Array, " d"]:
    """A translation of the reverse kernel's draw, or none where it is weighed without a density."""
    return jax.lax.select(
        jnp.broadcast_to(model.has_no_density(s), shift.shape), jnp.zeros_like(shift), shift
    )
