"""What a proposal is, and the reverse diffusion that it steers.

The particle filter targets ``p(x_{t:T}) psi_t(x_t)``: reverse kernels times a twist psi_t that
guesses p(y given x_t), with psi_0 = p(y given x_0). A proposal supplies the twist and the law q
from which x_s is drawn; the weights follow,

    log w_s = log p(x_s | x_t) - log q(x_s | x_t) + log psi_s(x_s) - log psi_t(x_t),

so a new sampler is one new file here: a twist and a draw. The denoiser is called once a particle
and step, in ``guide``; what the draw needs of that call travels with the particle.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module, static
from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.laws.changed import Change
from smcdiff.diffusion.laws.mixture import Transition
from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.problem import Problem

Guide = Any
"""What a proposal carries from the evaluation at x_t to the draw of x_s: a pytree."""


class ReverseModel(Module):
    """The reverse diffusion of one problem, on flat events.

    Attributes:
        problem: the NumPyro model, read.
        kernel: reverse kernel.
        levels: noise levels of the grid, decreasing; fields of shape (num_steps + 1,).
        weighted: whether the draws will be weighed; a heuristic may then make no move that has
            no density.
    """

    problem: Problem
    kernel: Kernel
    levels: Level
    weighted: bool = static(default=True)

    @property
    def size(self) -> int:
        """Length d of a flat event."""
        return math.prod(self.problem.event_shape)

    @property
    def num_steps(self) -> int:
        """Number of reverse steps."""
        return self.levels.time.shape[0] - 1

    def level(self, step: Array | int) -> Level:
        """The level after ``step`` reverse steps: 0 is t_max, ``num_steps`` is noise-free."""
        return jax.tree.map(lambda field: field[step], self.levels)

    def denoise(self, x: Float[Array, " d"], t: Level) -> Float[Array, " d"]:
        """The denoised mean m(x, t), flat: one network evaluation."""
        return jnp.ravel(self.problem.prior.denoise(self.event(x), t.time))

    def denoise_for_kernel(self, x: Float[Array, " d"], t: Level) -> Float[Array, " d"] | None:
        """The denoised mean where the reverse kernel needs one; `transition` takes either."""
        return self.denoise(x, t) if self.kernel.uses_denoised else None

    def event(self, x: Float[Array, " d"]) -> Float[Array, "*event"]:
        """A flat event in its own shape."""
        return x.reshape(self.problem.event_shape)

    def log_likelihood(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p(y given x_0 = x)."""
        return self.problem.log_likelihood(self.event(x))

    def describe(self, x: Float[Array, " d"]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Deterministic sites and pointwise log likelihood; see `Problem.describe`."""
        return self.problem.describe(self.event(x))

    def misfit(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """Misfit of a Gaussian observation, in the units of y; see `Problem.misfit`."""
        return self.problem.misfit(self.event(x))

    def residual(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """Whitened residual of a linear-Gaussian observation; see `Problem.residual`."""
        return self.problem.residual(self.event(x))

    def transition(self, x, denoised, step) -> Transition:
        """The reverse kernel from level ``step`` to level ``step + 1``."""
        t, s = self.level(step), self.level(step + 1)
        return self.kernel(self.problem.prior, x, denoised, t, s)

    def no_density(self, step) -> Array:
        """Whether the move from ``step`` is weighed and has no density: it must stay as it is."""
        return self.is_last(step) & (self.weighted and self.kernel.ends_in_dirac)

    def is_last(self, step) -> Array:
        """Whether the move from ``step`` is the one to the noise-free time."""
        return step == self.num_steps - 1


class Proposal(Module):
    """Base class of all proposals; the defaults are those of the bootstrap filter.

    A sampler is a frozen dataclass and a pytree: subclassing makes it so.

    Attributes:
        path_weighted: whether x_s is held to a path of the observed entries, so that p_s psi_s is
            not the law of the particles.
        masks_only: whether only single entries of x may be observed.
    """

    path_weighted: ClassVar[bool] = False
    masks_only: ClassVar[bool] = False

    def takes_exact(self, weighted: bool) -> bool:
        """Whether an observation without noise can be used, with weights on or off."""
        return False

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError``, before the run, where this proposal does not fit the problem."""

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """What all particles of a chain share (a pytree); computed once a run."""
        return None

    def start(
        self, key: PRNGKeyArray, model: ReverseModel, shared: Any
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """x_T and log p_T(x_T) - log q_T(x_T)."""
        return model.problem.prior.terminal().sample(key), jnp.zeros(())

    def guide(
        self, model: ReverseModel, shared: Any, x: Float[Array, " d"], step: Array
    ) -> tuple[Float[Array, ""], Guide]:
        """Log psi_t(x) at level ``step`` and what ``propose`` needs; one network evaluation."""
        raise NotImplementedError(f"{type(self).__name__} must define guide")

    def law(
        self,
        model: ReverseModel,
        shared: Any,
        x: Float[Array, " d"],
        guide: Guide,
        step: Array,
    ) -> Change:
        """The law q of x_s at level ``step + 1``, where its density can be had at any x_s."""
        raise NotImplementedError(f"{type(self).__name__} must define law or propose")

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        shared: Any,
        x: Float[Array, " d"],
        guide: Guide,
        step: Array,
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """x_s at level ``step + 1`` and log p(x_s given x_t) - log q(x_s given x_t).

        A proposal defines this, or `law` and no more.
        """
        law = self.law(model, shared, x, guide, step)
        moved = law.sample(key)
        return moved, law.log_ratio(moved)

    def final(self, model: ReverseModel, shared: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log psi_0(x): the log likelihood, unless the proposal has accounted for it already."""
        return model.log_likelihood(x)


def check_fits(proposal: Proposal, model: ReverseModel) -> None:
    """Raises ``InputError``, before the run, where a proposal does not fit the problem.

    Args:
        proposal: the proposal, of which this is `Proposal.check` and what holds for all of them.
        model: the reverse model.

    Raises:
        InputError: an observation that the proposal cannot use, an exact one that it divides by the
            noise of, or one whose last step has no density to weigh.
    """
    if model.problem.noise_free:
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
    proposal.check(model)
