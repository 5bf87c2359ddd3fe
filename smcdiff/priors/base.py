"""The base class of diffusion priors: a NumPyro distribution with a denoiser and a schedule."""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.laws.mixture import Transition
from smcdiff.diffusion.schedules import Level, Schedule
from smcdiff.errors import InputError


class DiffusionDistribution(dist.Distribution):
    """A distribution over one event that a sampler can reach through a reverse diffusion.

    Subclasses give the denoiser, the terminal law and their preferred reverse kernel. Methods that
    take an event work on one event; map over particles with ``jax.vmap``.

    Attributes:
        schedule: noise schedule of the forward process.
    """

    schedule: Schedule
    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("schedule",)
    reparametrized_params: ClassVar[list] = []

    def __init__(self, schedule: Schedule, event_shape: tuple[int, ...]):
        """Sets the schedule and the event shape."""
        if jax.tree_util.all_leaves([schedule]):
            raise InputError(
                f"{type(self).__name__}: the schedule's class {type(schedule).__name__} is no"
                " pytree; make it a subclass of smcdiff.Module"
            )
        self.schedule = schedule
        super().__init__(batch_shape=(), event_shape=tuple(event_shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The real numbers, one for each entry of an event."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def denoise(self, x: Float[Array, "*event"], t: Float[Array, ""]) -> Float[Array, "*event"]:
        """The denoiser m(x, t) = E[x_0 given x_t = x] (Tweedie)."""
        raise NotImplementedError(f"{type(self).__name__} must define denoise")

    def terminal(self) -> Transition:
        """The law of x_T at ``schedule.t_max``, on flat events."""
        raise NotImplementedError(f"{type(self).__name__} must define terminal")

    def default_kernel(self) -> Kernel:
        """The reverse kernel used when the user names none."""
        raise NotImplementedError(f"{type(self).__name__} must define default_kernel")

    def spread(self, level: Level) -> Float[Array, ""]:
        """A scalar guess of the variance of x_0 given x_t, a coordinate; in squared data units."""
        raise NotImplementedError(f"{type(self).__name__} must define spread")

    def average_spread(self, level: Level) -> Float[Array, ""]:
        """The variance of x_0 given x_t, averaged over coordinates; `spread` where not known.

        `spread` may be that of the most variable direction, which keeps a twist from being too
        sure; a draw of x_0 wants this one.
        """
        return self.spread(level)

    def posterior_covariance_times(
        self, matrix: Float[Array, "m d"], level: Level
    ) -> Float[Array, "m d"] | None:
        """Matrix times the covariance of x_0 given x_t, where that does not depend on x_t."""
        return None

    def score(self, x: Float[Array, "*event"], t: Float[Array, ""]) -> Float[Array, "*event"]:
        """The score of p_t: ``(alpha_t m(x, t) - x) / sigma_t^2``."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return (alpha * self.denoise(x, t) - x) / sigma**2

    def _sample_many(self, draw_one, key: PRNGKeyArray, sample_shape: tuple[int, ...]) -> Array:
        """Maps a single-event sampler over ``sample_shape``."""
        draws = jax.vmap(draw_one)(jax.random.split(key, math.prod(sample_shape)))
        return jnp.reshape(draws, (*sample_shape, *self.event_shape))
