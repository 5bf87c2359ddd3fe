"""What a move is, and how it learns its scale from the particles."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module, static
from smcdiff.errors import InputError

LogDensity = Callable[[Float[Array, " p"]], Float[Array, ""]]


class Moved(NamedTuple):
    """Where a move has led.

    Attributes:
        position: (p,).
        acceptance: mean acceptance probability of its steps.
    """

    position: Float[Array, " p"]
    acceptance: Float[Array, ""]


class Move(Module):
    """Steps of a Markov chain on the unknown parameters of one particle.

    Attributes:
        num_steps: of the chain, at every level of noise.
        target: acceptance that the size of its steps is set for.
    """

    num_steps: int = static(default=1)
    target: ClassVar[float] = 0.65

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(
                    f"{type(self).__name__}: {field.name} is {value!r}; it must be a whole number,"
                    " at least 1"
                )

    def first_size(self, dimension: int) -> float:
        """Size of a step for a target of unit covariance."""
        raise NotImplementedError(f"{type(self).__name__} must define first_size")

    def kernel(self, log_density: LogDensity, size: Float[Array, ""]) -> tuple[Callable, Callable]:
        """A kernel as BlackJAX has them: ``init(position)``, and ``step(key, state)``.

        Args:
            log_density: that it leaves as it is, in coordinates of about unit covariance.
            size: of a step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define kernel")

    def __call__(
        self, key: PRNGKeyArray, log_density: LogDensity, position: Float[Array, " p"], scale: Scale
    ) -> Moved:
        """The move of one particle.

        Args:
            key: random key.
            log_density: of the parameters, unconstrained.
            position: unconstrained.
            scale: what the particles have told so far.
        """

        def whitened(offset: Float[Array, " p"]) -> Float[Array, ""]:
            return log_density(position + scale.root @ offset)

        init, step = self.kernel(whitened, jnp.exp(scale.log_size))

        def one(state: Any, key: PRNGKeyArray) -> tuple[Any, Array]:
            state, info = step(key, state)
            # NaN where a trajectory has left what can be computed; the kernel stays where it was.
            return state, jnp.nan_to_num(info.acceptance_rate)

        keys = jax.random.split(key, self.num_steps)
        state, rates = jax.lax.scan(one, init(jnp.zeros_like(position)), keys)
        return Moved(position + scale.root @ state.position, jnp.mean(rates))


class Scale(NamedTuple):
    """The scale of a move.

    Attributes:
        root: (p, p) triangular, of the covariance of the parameters.
        log_size: of a step, in its units.
    """

    root: Float[Array, "p p"]
    log_size: Float[Array, ""]


class Frame(NamedTuple):
    """Where the prior of the parameters lies, by quartiles: tails may be heavy.

    Attributes:
        centre: (p,) medians.
        spread: (p,) what would be the standard deviations of normals.
    """

    centre: Float[Array, " p"]
    spread: Float[Array, " p"]

    @classmethod
    def of(cls, draws: Float[Array, "n p"]) -> Frame:
        """Of draws of the prior."""
        low, centre, high = jnp.quantile(draws, jnp.array([0.25, 0.5, 0.75]), axis=0)
        return cls(centre, jnp.maximum((high - low) / _QUARTILES, _LEAST))


class Experience(NamedTuple):
    """What a particle tells of its parameters; averaged over the particles, what all have told.

    Attributes:
        first: (p,) the parameters, from the frame's centre in its units.
        second: (p, p) their products.
        log_size: of the last steps.
        acceptance: of the last steps.
    """

    first: Float[Array, " p"]
    second: Float[Array, "p p"]
    log_size: Float[Array, ""]
    acceptance: Float[Array, ""]

    @classmethod
    def of(
        cls, position: Float[Array, " p"], frame: Frame, log_size: Array, acceptance: Array
    ) -> Experience:
        """Of one particle."""
        first = (position - frame.centre) / frame.spread
        return cls(first, first[:, None] * first[None, :], log_size, acceptance)

    def scale(self, move: Move, frame: Frame) -> Scale:
        """The scale of the next steps, from means over the particles.

        The covariance is held a little towards the prior's, so that it has a root where few
        different values are left; the size follows the acceptance (Robbins and Monro 1951).
        """
        covariance = self.second - self.first[:, None] * self.first[None, :]
        root = jnp.linalg.cholesky(covariance + _HELD * jnp.eye(len(self.first)))
        # Where no two values differ rounding may leave less than nothing.
        root = jnp.where(jnp.all(jnp.isfinite(root)), root, math.sqrt(_HELD) * jnp.eye(len(root)))
        log_size = self.log_size + self.acceptance - move.target
        return Scale(frame.spread[:, None] * root, jnp.clip(log_size, *_BOUNDS))


_QUARTILES = 1.349
"""Between those of a standard normal."""
_LEAST = 1e-6
"""Of a spread: a prior may be next to a point."""
_HELD = 1e-4
"""Of the prior's variance, that is added to the particles' own."""
_BOUNDS = (math.log(1e-4), math.log(10.0))
"""Of the size of a step: below there is no move, above no acceptance."""
