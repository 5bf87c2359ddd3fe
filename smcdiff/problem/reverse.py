"""`ReverseModel`: the reverse diffusion of a problem, as twists and proposals see it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smcdiff.base.module import Module, static
from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.laws import Mixture
from smcdiff.diffusion.schedules import Level
from smcdiff.problem.problem import Problem


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
        return self.problem.size

    @property
    def num_steps(self) -> int:
        """Number of reverse steps."""
        return self.levels.time.shape[0] - 1

    def level(self, index: Int[Array, ""] | int) -> Level:
        """The level of a place on the grid: 0 is t_max, ``num_steps`` is noise-free."""
        return jax.tree.map(lambda field: field[index], self.levels)

    @property
    def first(self) -> Level:
        """The level where sampling starts."""
        return self.level(0)

    def event(self, x: Float[Array, " d"]) -> Float[Array, "*event"]:
        """A flat event in its own shape."""
        return x.reshape(self.problem.event_shape)

    def denoise(self, x: Float[Array, " d"], t: Level) -> Float[Array, " d"]:
        """The denoised mean m(x, t), flat: one network evaluation."""
        return jnp.ravel(self.problem.prior.denoise(self.event(x), t.time))

    def denoise_for_kernel(self, x: Float[Array, " d"], t: Level) -> Float[Array, " d"] | None:
        """The denoised mean where the reverse kernel needs one; `transition` takes either."""
        return self.denoise(x, t) if self.kernel.uses_denoised else None

    def transition(
        self, x: Float[Array, " d"], denoised: Float[Array, " d"] | None, t: Level, s: Level
    ) -> Mixture:
        """The reverse kernel from level t to level s, which may be several steps of the grid."""
        return self.kernel(self.problem.prior, x, denoised, t, s)

    def log_likelihood(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p(y given x_0 = x)."""
        return self.problem.log_likelihood(self.event(x))

    def has_no_density(self, s: Level) -> Bool[Array, ""]:
        """Whether the move to s is weighed and has no density: it must stay as it is."""
        return s.is_clean & (self.weighted and self.kernel.ends_in_dirac)
