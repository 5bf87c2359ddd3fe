"""The noise of what y sees along a path, moved by Metropolis-Hastings steps.

Where y sees the path, V' x_t is what y says of V' x_0 with noise that the levels add one after the
other. Under the forward process this noise is a vector e of independent standard normals: of level
1 the noise of y and that of the level together, and above it what each level adds. A step proposes

    e' = sqrt(1 - b^2) e + b xi,    x_t' = x_t + V (V' x_t(e') - V' x_t(e)),

which leaves N(0, I) as it is (preconditioned Crank-Nicolson, Cotter et al. 2013), and accepts it by
how much the learned chain and the likelihood, p(x_{0:T}) p(y given x_0), prefer the one path to the
other beyond that. x_0 moves along with the mean of the last step. So the path's law is left as it
is, whatever the reverse kernel, for one network evaluation per level, all levels at once.

Reference:
    S. L. Cotter, G. O. Roberts, A. M. Stuart and D. White (2013), MCMC methods for functions,
    Statist. Sci. 28, 424.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module
from smcdiff.diffusion import kernels
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals._shared_path import SharedPath

NUM_MOVES = 3
"""Of a sweep."""
TARGET = 0.4
"""Acceptance that the size of the steps is set for."""


class _Path(NamedTuple):
    """A path in the coordinates that are moved.

    Attributes:
        x: (T, d) x_T to x_1.
        noise: (T, r) e, of x_T to x_1; 0 where nothing is held.
        rest: (d,) x_0 less the mean of the last step.
        clean: (d,) x_0.
        log_weight: log of p(x_{0:T}) p(y given x_0) over the density of e under N(0, I).
    """

    x: Float[Array, "levels d"]
    noise: Float[Array, "levels r"]
    rest: Float[Array, " d"]
    clean: Float[Array, " d"]
    log_weight: Float[Array, ""]


class PathNoise(Module):
    """The moves, for one model and one observation.

    Attributes:
        model: the reverse model.
        prepared: by `OwnPath`.
    """

    model: ReverseModel
    prepared: SharedPath

    def draw(self, key: PRNGKeyArray) -> Float[Array, "levels r"]:
        """V' x_t at the noisy levels, x_T first: a forward path of y."""
        shape = (self.model.num_steps, self.prepared.held.which.shape[0])
        return self.values(jax.random.normal(key, shape))

    def read(self, path: Float[Array, "levels d"]) -> Float[Array, "noisy r"]:
        """V' x_t at the noisy levels of a path with a blank in front."""
        return jax.vmap(self.prepared.held.system.directions)(path[1:-1])

    def put(
        self, path: Float[Array, "levels d"], values: Float[Array, "noisy r"]
    ) -> Float[Array, "levels d"]:
        """A path with other values where they are held, and at x_0 with what y says."""
        held = self.prepared.held
        values = jnp.concatenate([values, held.system.data[None]])

        def one(x: Array, values: Array) -> Array:
            off = jnp.where(held.which, values - held.system.directions(x), 0.0)
            return x + held.system.directions.adjoint(off)

        return jnp.concatenate([path[:1], jax.vmap(one)(path[1:], values)])

    def values(self, noise: Float[Array, "levels r"]) -> Float[Array, "levels r"]:
        """V' x_t from the noise."""
        centre, spread, shrink, scale = self._coefficients()
        first = centre + spread * noise[-1]

        def up(below: Array, step: tuple) -> tuple[Array, Array]:
            shrink, scale, noise = step
            here = shrink * below + scale * noise
            return here, here

        _, above = jax.lax.scan(up, first, (shrink, scale, noise[:-1]), reverse=True)
        return jnp.concatenate([above, first[None]])

    def noise(self, values: Float[Array, "levels r"]) -> Float[Array, "levels r"]:
        """The noise from V' x_t; the inverse of `values`, 0 where nothing is held."""
        centre, spread, shrink, scale = self._coefficients()
        above = (values[:-1] - shrink[:, None] * values[1:]) / scale[:, None]
        found = jnp.concatenate([above, ((values[-1] - centre) / spread)[None]])
        return jnp.where(self.prepared.held.which[None], found, 0.0)

    def move(
        self, key: PRNGKeyArray, path: Float[Array, "levels d"], size: Float[Array, ""]
    ) -> tuple[Float[Array, "levels d"], Float[Array, ""]]:
        """`NUM_MOVES` steps.

        Args:
            key: random key.
            path: a blank, x_T, ..., x_0.
            size: b, in (0, 1].

        Returns:
            The path, and the mean acceptance probability.
        """
        start = self._at(path[1:-1], self.noise(self.read(path)), clean=path[-1])

        def step(held: _Path, key: PRNGKeyArray) -> tuple[_Path, Array]:
            key_noise, key_accept = jax.random.split(key)
            fresh = jax.random.normal(key_noise, held.noise.shape)
            fresh = jnp.where(self.prepared.held.which[None], fresh, 0.0)
            noise = jnp.sqrt(1.0 - size**2) * held.noise + size * fresh
            change = self.values(noise) - self.values(held.noise)
            adjoint = jax.vmap(self.prepared.held.system.directions.adjoint)
            other = self._at(held.x + adjoint(change), noise, rest=held.rest)
            log_rate = jnp.nan_to_num(other.log_weight - held.log_weight, nan=-jnp.inf)
            accept = jnp.log(jax.random.uniform(key_accept)) < log_rate
            chosen = jax.tree.map(lambda a, b: jnp.where(accept, a, b), other, held)
            return chosen, jnp.exp(jnp.minimum(log_rate, 0.0))

        end, rates = jax.lax.scan(step, start, jax.random.split(key, NUM_MOVES))
        moved = jnp.concatenate([path[:1], end.x, end.clean[None]])
        return moved, jnp.mean(rates)

    def _at(
        self,
        x: Float[Array, "levels d"],
        noise: Float[Array, "levels r"],
        clean: Float[Array, " d"] | None = None,
        rest: Float[Array, " d"] | None = None,
    ) -> _Path:
        """The path at noisy states, and x_0 or its rest: one network evaluation per level."""
        model = self.model
        before, after = self._levels(slice(None, -1)), self._levels(slice(1, None))

        def transition(x: Array, next_x: Array, t: Level, s: Level) -> tuple[Array, Array]:
            law = model.transition(x, model.denoise_for_kernel(x, t), t, s)
            return law.mean, jnp.where(s.is_clean, 0.0, law.log_prob(next_x))

        targets = jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])
        means, log_densities = jax.vmap(transition)(x, targets, before, after)
        if rest is None:
            assert clean is not None
            free = model.has_no_density(model.level(model.num_steps))
            rest = jnp.where(free, 0.0, clean - means[-1])
        clean = means[-1] + rest
        log_weight = model.problem.prior.terminal().log_prob(x[0]) + jnp.sum(log_densities)
        log_weight = log_weight + model.log_likelihood(clean) + 0.5 * jnp.sum(noise**2)
        return _Path(x, noise, rest, clean, log_weight)

    def _levels(self, which: slice) -> Level:
        return jax.tree.map(lambda field: field[which], self.model.levels)

    def _coefficients(self) -> tuple[Array, Array, Array, Array]:
        """Centre and spread at the last noisy level, and what the levels above it do."""
        system, held = self.prepared.held.system, self.prepared.held
        last = self.model.level(self.model.num_steps - 1)
        spread = jnp.sqrt((last.alpha * held.scale) ** 2 + last.sigma**2)
        shrink, scale = kernels.forward(self._levels(slice(1, -1)), self._levels(slice(None, -2)))
        return last.alpha * system.data, spread, shrink, scale
