"""Holding particles to what was observed of them, direction by direction.

In the singular coordinates of the operator (for a mask, its entries) y observes V' x with noise of
standard deviation 1 / s. `Replacement` overwrites V' x at every level, by y / s less a draw of that
noise, put where the forward process takes it; `SharedPath` draws where it is at all levels at once.
Where the signal is weak a draw of the noise lies far outside the prior; with weights on those
directions are not overwritten but weighed. An exact observation has no noise to draw, and with
weights off nothing else would know of the rest: then all directions that are seen are held, as
published.
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smcdiff.base._gaussian import LOG_2PI
from smcdiff.base.module import Module
from smcdiff.diffusion.laws import Mixture, PinnedAlong, PinnedCoordinates, PinnedDirections, pinned
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals.base import Proposal
from smcdiff.twists._singular import SingularSystem, require_singular

_LEAST_SIGNAL = 2.0
"""Of a direction that is overwritten, over its noise."""


class Held(Module):
    """The observation in singular coordinates, and which of them are held.

    Attributes:
        system: the singular system.
        which: (r,).
    """

    system: SingularSystem
    which: Bool[Array, " r"]

    @classmethod
    def of(cls, model: ReverseModel) -> Held:
        """Decides which directions are overwritten; once per run."""
        system = SingularSystem.of(model)
        if model.problem.is_noise_free or not model.weighted:
            return cls(system, system.seen)
        spread = model.problem.prior.average_spread(model.first)
        return cls(system, system.values * jnp.sqrt(spread) >= _LEAST_SIGNAL)

    @property
    def scale(self) -> Float[Array, " r"]:
        """Standard deviation of the noise of what is held, in the units of x; else 1."""
        values = jnp.where(self.which, self.system.values, 1.0)
        return jnp.where(self.which, jnp.sqrt(self.system.noise) / values, 1.0)

    @property
    def log_volume(self) -> Float[Array, ""]:
        """Log density of what is held, as one of y, over that of V' x, without its misfit."""
        values = jnp.log(jnp.where(self.which, self.system.values, 1.0))
        return jnp.sum(values - 0.5 * LOG_2PI * self.which)

    def pin(
        self, law: Mixture, values: Float[Array, " r"]
    ) -> PinnedAlong | PinnedCoordinates | PinnedDirections:
        """A law of x given what is held of it; values that are not held are ignored."""
        return pinned(law, self.system.directions, self.which, values)

    def log_weak(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log density of what is not held given x_0 = x, and the constant."""
        misfit = jnp.where(self.which, 0.0, self.system.misfit(x))
        return self.system.log_constant - 0.5 * jnp.sum(misfit**2)


class Holding(Proposal):
    """What the samplers that hold particles share."""

    follows_path: ClassVar[bool] = True

    def takes_exact(self, weighted: bool) -> bool:
        """Always."""
        return True

    def check(self, model: ReverseModel) -> None:
        """Raises ``InputError`` unless the observation is of a kind that can be held."""
        name = type(self).__name__
        if self.masks_only:
            require_entries(model, name)
        else:
            require_singular(model, name)


def require_entries(model: ReverseModel, name: str) -> None:
    """Raises ``InputError`` unless every observation is one entry of x, plus Gaussian noise."""
    problem = model.problem
    if problem.is_linear:
        if problem.linear_observation().operator.picks_entries:
            return
        others = "FPS()" if problem.is_noise_free else "Twisted() or proposals.MomentMatched()"
        raise InputError(
            f"{name} needs an observation of single entries of site '{problem.site}' (a mask, each"
            f" entry at most once); for other linear operators use proposals.{others}"
        )
    require_singular(model, name)


def log_normal(
    x: Float[Array, " r"],
    mean: Float[Array, " r"],
    scale: Float[Array, " r"],
    where: Bool[Array, " r"],
) -> Float[Array, ""]:
    """Log density of independent normals, of some entries."""
    terms = -0.5 * ((x - mean) / scale) ** 2 - jnp.log(scale) - 0.5 * LOG_2PI
    return jnp.sum(jnp.where(where, terms, 0.0))
