"""`ReverseModel`: the reverse diffusion of a problem, as twists and proposals see it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from smcdiff.base.module import Module, static
from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.laws import Mixture
from smcdiff.diffusion.schedules import Level
from smcdiff.problem.problem import Problem


class Sight(Module):
    """What one evaluation of the network has shown at a state.

    Attributes:
        denoised: the denoised mean there.
        derivative: of the denoised mean, a linear function; a pytree.
    """

    denoised: Float[Array, " d"]
    derivative: Any


class ReverseModel(Module):
    """The reverse diffusion of one problem, on flat events.

    Attributes:
        problem: the NumPyro model, read.
        kernel: reverse kernel.
        levels: noise levels of the grid, decreasing; fields of shape (num_steps + 1,).
        weighted: whether the draws will be weighed; a heuristic may then make no move that has
            no density.
        sight: where the network has been evaluated already; then `denoise` is for that state.
        before: of the stages before, where the prior depends on other diffusion sites.
    """

    problem: Problem
    kernel: Kernel
    levels: Level
    weighted: bool = static(default=True)
    sight: Sight | None = None
    before: tuple[ReverseModel, ...] = ()

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
    def stages(self) -> tuple[ReverseModel, ...]:
        """This model after those of the stages before."""
        return (*self.before, self)

    @property
    def all_levels(self) -> Level:
        """The levels of all stages, one grid after the other."""
        return jax.tree.map(lambda *a: jnp.concatenate(a), *(m.levels for m in self.stages))

    @property
    def first(self) -> Level:
        """The level where sampling starts."""
        return self.level(0)

    def event(self, x: Float[Array, " d"]) -> Float[Array, "*event"]:
        """A flat event in its own shape."""
        return x.reshape(self.problem.event_shape)

    def denoise(self, x: Float[Array, " d"], t: Level) -> Float[Array, " d"]:
        """The denoised mean m(x, t), flat: one network evaluation, or none where it was seen."""
        if self.sight is not None:
            return _recall(x, self.sight)
        return jnp.ravel(self.problem.prior.denoise(self.event(x), t.time))

    def given(self, parameters: Float[Array, " p"]) -> ReverseModel:
        """The model given a value of the unknown parameters, unconstrained."""
        return dataclasses.replace(self, problem=self.problem.at(parameters))

    def holding(self, values: Float[Array, " p"]) -> ReverseModel:
        """The model given values of the sites of earlier stages, flat."""
        return dataclasses.replace(self, problem=self.problem.holding(values))

    def look(self, x: Float[Array, " d"], t: Level) -> Sight:
        """One network evaluation, with its derivative."""
        return Sight(*jax.linearize(lambda x: self.denoise(x, t), x))

    def seen(self, sight: Sight) -> ReverseModel:
        """The model where the network has been evaluated.

        Whatever is then asked at this state, values and derivatives, for however many values of the
        parameters, needs no other evaluation.
        """
        return dataclasses.replace(self, sight=sight)

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


@jax.custom_jvp
def _recall(x: Float[Array, " d"], sight: Sight) -> Float[Array, " d"]:
    """The denoised mean at the state that was seen, as a function of it."""
    return sight.denoised


@_recall.defjvp
def _recall_derivative(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    (_, sight), (direction, _) = primals, tangents
    return sight.denoised, sight.derivative(direction)
