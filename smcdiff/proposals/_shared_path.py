"""A forward path of the observation, and the laws of x given it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smcdiff.base._gaussian import LOG_2PI
from smcdiff.base.module import Module
from smcdiff.diffusion import kernels
from smcdiff.diffusion.laws import Conditioned, ConditionedAlong, Mixture, conditioned_along
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals._held import Held, log_normal
from smcdiff.twists._singular import SingularSystem

_PINNED = 1e-10
"""Variance of an observation that is exact, where a law divides by it."""


class SharedPath(Module):
    """A forward path of the observation, each direction from its own level upwards.

    In the singular coordinates of the operator y observes V' x_0 with noise of standard deviation
    1 / s. So does x_u / alpha_u, at the level u whose noise is that: y stands for x_u there.

    Attributes:
        held: the observation, and which of its directions have a level of their own on the grid.
        own: (r,) their own levels.
        values: (num_steps + 1, r) V' x_t on the path; of no meaning below a direction's own level.
        log_forward: (num_steps,) log density of the path's level n given the levels below it.
    """

    held: Held
    own: Level
    values: Float[Array, "levels r"]
    log_forward: Float[Array, " steps"]

    @classmethod
    def draw(cls, key: PRNGKeyArray, model: ReverseModel) -> SharedPath:
        """One path."""
        system = SingularSystem.of(model)
        own = _own_levels(model, system)
        held = Held(system, system.seen & (own.log_snr >= model.first.log_snr))
        draws = jax.random.normal(key, (model.num_steps, system.values.shape[0]))

        def noisier(values, step):
            level, below = model.level(step), model.level(step + 1)
            from_below = held.which & (own.log_snr >= below.log_snr)
            here = held.which & (own.log_snr >= level.log_snr)
            shrink, scale = _forward(below, own, from_below, level)
            mean = shrink * jnp.where(from_below, values, own.alpha * system.data)
            values = mean + scale * draws[step]
            # At a direction's own level the path is y, and there is nothing to be drawn.
            drawn = here & (scale > 0.0)
            density = log_normal(values, mean, jnp.where(drawn, scale, 1.0), drawn)
            return values, (values, density)

        # Where the observation is exact, the path begins at x_0 itself.
        clean = system.data
        steps = jnp.arange(model.num_steps)
        _, (values, log_forward) = jax.lax.scan(noisier, clean, steps, reverse=True)
        return cls(held, own, jnp.concatenate([values, clean[None]]), log_forward)

    def on_path(self, t: Level) -> Bool[Array, " r"]:
        """Which directions are on the path at a level."""
        return self.held.which & (self.own.log_snr >= t.log_snr)

    def misfit(
        self, denoised: Float[Array, " d"], t: Level, spread: Float[Array, ""]
    ) -> Float[Array, ""]:
        """Half the squared distance of V' m(x_t) from what y tells beyond the path at level t.

        Args:
            denoised: (d,) m(x_t).
            t: the level.
            spread: variance of x_0 given x_t, per coordinate.
        """
        system, on_path, precision = self.held.system, self.on_path(t), self._precision
        # Precisions of independent observations add: y has that of its path, and the rest.
        path_precision = jnp.where(on_path, jnp.exp(t.log_snr), 0.0)
        passed = self.held.which & ~on_path
        left = jnp.where(passed, 0.0, jnp.maximum(precision - path_precision, 0.0))
        weighed = precision * system.data - path_precision * self.values[t.index] / t.alpha
        residual = weighed - left * system.directions(denoised)
        told = left > 1e-6 * precision
        variances = jnp.where(told, left * (1.0 + left * spread), 1.0)
        return 0.5 * jnp.sum(jnp.where(told, residual**2 / variances, 0.0))

    def put_on(self, x: Float[Array, " d"], s: Level) -> Float[Array, " d"]:
        """A draw at level s without what rounding, or a Dirac, has left of its distance."""
        directions = self.held.system.directions
        off = jnp.where(self.on_path(s), self.values[s.index] - directions(x), 0.0)
        return x + directions.adjoint(off)

    @property
    def log_volume(self) -> Float[Array, ""]:
        """Log density of what is held, as one of y, over that of V' x_u."""
        jacobian = jnp.log(jnp.where(self.held.which, self.own.alpha, 1.0))
        return self.held.log_volume - jnp.sum(jacobian)

    def condition(self, law: Mixture, s: Level) -> Along:
        """A law of x_s given the path."""
        used = self.on_path(s)
        gains, variances = used.astype(law.mean.dtype), jnp.zeros(used.shape)
        return Along.of(self, law, used, gains, self.values[s.index], variances)

    def condition_step(
        self, transition: Mixture, x: Float[Array, " d"], t: Level, s: Level
    ) -> Along:
        """The reverse kernel given the path at s, and y where its level lies between t and s."""
        pinned, system = self.on_path(s), self.held.system
        passed = self.held.which & ~pinned & (self.own.log_snr > t.log_snr)
        own = jax.tree.map(lambda field: jnp.where(passed, field, 1.0), self.own)
        down, spread_down = kernels.forward(s, own)
        up, spread_up = kernels.forward(own, t)
        # x_u given x_s and x_t, by the forward process.
        total = spread_up**2 + (up * spread_down) ** 2
        total = jnp.where(passed, total, 1.0)
        gains = jnp.where(passed, down * spread_up**2 / total, pinned.astype(total.dtype))
        variances = jnp.where(passed, (spread_down * spread_up) ** 2 / total, 0.0)
        from_noisier = up * spread_down**2 / total * system.directions(x)
        target = self.own.alpha * system.data - from_noisier
        target = jnp.where(passed, target, self.values[s.index])
        return Along.of(self, transition, pinned | passed, gains, target, variances)

    def land(
        self, key: PRNGKeyArray, x: Float[Array, " d"], t: Level, spread: Float[Array, ""]
    ) -> Float[Array, " d"]:
        """A draw of x_0 where the kernel's last step is a Dirac.

        That leaves out the spread of x_0 given x_t. Where y is as noisy as the last level it is all
        that y leaves open, and where y is less noisy x_0 has to be nearer to y than x_t is: in
        these directions x_0 is drawn from N(x, spread) given what y tells beyond the path at t.

        Args:
            key: random key.
            x: what the kernel draws.
            t: the last noisy level.
            spread: variance of x_0 given x_t, per coordinate.
        """
        directions = self.held.system.directions
        left = jnp.maximum(self._precision - jnp.exp(t.log_snr), 0.0)
        variance = spread / (1.0 + left * spread)
        noise = jax.random.normal(key, left.shape, x.dtype)
        moved = left * variance * (self.held.system.data - directions(x)) + variance**0.5 * noise
        return x + directions.adjoint(jnp.where(self.held.which, moved, 0.0))

    @property
    def _precision(self) -> Float[Array, " r"]:
        """Of y as an observation of V' x_0."""
        system = self.held.system
        seen = jnp.where(system.seen, system.values**2, 0.0)
        return seen / jnp.maximum(system.noise, _PINNED)

    def renoise(
        self, key: PRNGKeyArray, x: Float[Array, " d"], s: Level, t: Level
    ) -> Float[Array, " d"]:
        """A draw of x_t given x_s and the path, by the forward process from s up to t."""
        key_noise, key_misfit = jax.random.split(key)
        noisy, directions = kernels.renoise(key_noise, x, s, t), self.held.system.directions
        # Between x_s and y, where the path begins above t: moved by the gain times its own misfit.
        above = self.held.which & (self.own.log_snr < t.log_snr)
        own = jax.tree.map(lambda field: jnp.where(above, field, 1.0), self.own)
        (_, scale), (up, spread) = kernels.forward(s, t), kernels.forward(t, own)
        total = jnp.where(above, (up * scale) ** 2 + spread**2, 1.0)
        misfit = own.alpha * self.held.system.data - up * directions(noisy)
        misfit = misfit - spread * jax.random.normal(key_misfit, misfit.shape, x.dtype)
        moved = jnp.where(above, up * scale**2 / total * misfit, 0.0)
        return self.put_on(noisy + directions.adjoint(moved), t)


def _forward(
    below: Level, own: Level, from_below: Bool[Array, " r"], level: Level
) -> tuple[Float[Array, " r"], Float[Array, " r"]]:
    """What takes each direction to a level: from the one below, or from its own."""
    source = jax.tree.map(lambda a, b: jnp.where(from_below, a, b), below, own)
    return kernels.forward(source, level)


class Along(NamedTuple):
    """A law of x given the path.

    Attributes:
        law: the law.
        used: (r,) the directions of which the path tells something.
        log_density: of what the path tells, under the law without it.
    """

    law: Conditioned | ConditionedAlong
    used: Bool[Array, " r"]
    log_density: Float[Array, ""]

    @classmethod
    def of(
        cls,
        path: SharedPath,
        base: Mixture,
        used: Bool[Array, " r"],
        gains: Float[Array, " r"],
        target: Float[Array, " r"],
        variances: Float[Array, " r"],
    ) -> Along:
        """The law given target = gains V' x + noise, in the directions used."""
        directions = path.held.system.directions
        gains = jnp.where(used, gains, 0.0)
        residual = jnp.where(used, target - gains * directions(base.mean), 0.0)
        variances = jnp.where(used, jnp.maximum(variances, _PINNED), 1.0)
        law = conditioned_along(base, directions, gains, residual, variances)
        return cls(law, used, law.log_marginal + 0.5 * LOG_2PI * jnp.sum(~used))


def _own_levels(model: ReverseModel, system: SingularSystem) -> Level:
    """The level of each direction at which the noise of x_t / alpha_t is that of y."""
    shape = system.values.shape
    if model.problem.is_noise_free:
        return jax.tree.map(lambda field: jnp.broadcast_to(field, shape), Level.clean())
    log_snr = 2.0 * jnp.log(jnp.where(system.seen, system.values, 1.0))
    if model.kernel.ends_in_dirac:
        # Below the last noisy level there is no density to weigh y by.
        log_snr = jnp.minimum(log_snr, model.level(model.num_steps - 1).log_snr)
    schedule = model.problem.prior.schedule
    time = schedule.time(log_snr)
    alpha = schedule.alpha(time)
    sigma = alpha * jnp.exp(-0.5 * log_snr)
    return Level(time, alpha, sigma, log_snr, jnp.full(shape, -1, jnp.int32))
