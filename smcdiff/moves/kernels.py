"""The moves that there are: BlackJAX's kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import static
from smcdiff.moves.base import LogDensity, Move


class RandomWalk(Move):
    """Random-walk Metropolis steps: values of the likelihood and no gradient.

    Cost: ``num_steps`` evaluations of twist and likelihood per particle and reverse step.

    Attributes:
        num_steps: of the chain, at every level of noise.
    """

    num_steps: int = static(default=8)
    target: ClassVar[float] = 0.3

    def first_size(self, dimension: int) -> float:
        """2.38 / sqrt(p), Roberts, Gelman and Gilks (1997)."""
        return 2.38 / math.sqrt(dimension)

    def kernel(self, log_density: LogDensity, size: Float[Array, ""]) -> tuple[Callable, Callable]:
        """See `Move`."""
        from blackjax.mcmc import random_walk  # half a second, for models with parameters alone

        kernel = random_walk.build_additive_step()

        def draw(key: PRNGKeyArray, position: Array) -> Array:
            return size * jax.random.normal(key, position.shape, position.dtype)

        return (
            lambda position: random_walk.init(position, log_density),
            lambda key, state: kernel(key, state, log_density, draw),
        )


class MALA(Move):
    """Metropolis-adjusted Langevin steps.

    Cost: ``num_steps`` evaluations of twist and likelihood with their gradient per particle and
    reverse step.

    Attributes:
        num_steps: of the chain, at every level of noise.
    """

    num_steps: int = static(default=4)
    target: ClassVar[float] = 0.57

    def first_size(self, dimension: int) -> float:
        """1.65 / p^(1/6), Roberts and Rosenthal (1998)."""
        return 1.65 / dimension ** (1 / 6)

    def kernel(self, log_density: LogDensity, size: Float[Array, ""]) -> tuple[Callable, Callable]:
        """See `Move`."""
        from blackjax.mcmc import mala

        kernel: Any = mala.build_kernel()  # its types know steps of Python's numbers alone
        # BlackJAX draws x + h grad + sqrt(2 h) z.
        return (
            lambda position: mala.init(position, log_density),
            lambda key, state: kernel(key, state, log_density, 0.5 * size**2),
        )


class HMC(Move):
    """Hamiltonian Monte Carlo, the length of whose steps is drawn anew for each trajectory.

    Cost: ``num_steps * num_integration_steps`` evaluations of twist and likelihood with their
    gradient per particle and reverse step.

    Attributes:
        num_steps: trajectories at every level of noise.
        num_integration_steps: of a trajectory.
    """

    num_steps: int = static(default=1)
    num_integration_steps: int = static(default=4)
    target: ClassVar[float] = 0.7

    def first_size(self, dimension: int) -> float:
        """A trajectory of about a quarter of a period."""
        return math.pi / 2 / self.num_integration_steps

    def kernel(self, log_density: LogDensity, size: Float[Array, ""]) -> tuple[Callable, Callable]:
        """See `Move`."""
        from blackjax.mcmc import hmc

        kernel: Any = hmc.build_kernel()

        def trajectory(key: PRNGKeyArray, state: Any) -> tuple[Any, Any]:
            key, key_length = jax.random.split(key)
            own = size * jax.random.uniform(key_length, (), size.dtype, 0.5, 1.5)
            ones = jnp.ones_like(state.position)
            return kernel(key, state, log_density, own, ones, self.num_integration_steps)

        return lambda position: hmc.init(position, log_density), trajectory
