"""FPS: filtering posterior sampling (Dou and Song 2024), along a simulated path of y."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smcdiff.base.gaussian import LOG_2PI
from smcdiff.diffusion.laws.mixture import Transition
from smcdiff.proposals.base import Proposal, ReverseModel
from smcdiff.proposals.linear import held, log_weak, weak_guide
from smcdiff.proposals.replacement import forward_noise
from smcdiff.proposals.singular import SingularSystem, require_singular, singular_system


class _Path(NamedTuple):
    """The forward path of the observation in singular coordinates.

    Attributes:
        system: the singular system.
        held: (r,) which coordinates follow it.
        noise: (num_steps + 1, r) the noise of V' x_t along the path; y_t = alpha_t y + s noise.
        log_forward: (num_steps,) log density of the path's level n given level n + 1.
    """

    system: SingularSystem
    held: Bool[Array, " r"]
    noise: Float[Array, "levels r"]
    log_forward: Float[Array, " steps"]

    def log_weak(self, x: Float[Array, " d"], spread) -> Float[Array, ""]:
        """Log density of the data that are not held, for x_0 about x, and the constant."""
        system = self.system
        misfit = system.observed - system.project(x)
        return system.log_constant + log_weak(misfit, system.values, ~self.held, spread)


class FPS(Proposal):
    """Condition every reverse step on a simulated path y_t of the observation.

    The path diffuses y with what the operator makes of the state's noise, y_t = (alpha_t / alpha_s)
    y_s + A z, so that y_t = A x_t + alpha_t n with n the noise of y. One path is drawn for each
    chain. With weights off x_s is drawn from the reverse kernel given y_s, whose law given x_s is
    N(A x_s, alpha_s^2 sigma_y^2 I) (Dou and Song 2024, algorithm 1).

    n is the same at all levels. The paper's particle filter (algorithm 2) takes it for independent
    noise, and so counts the likelihood once a level. With weights on, each particle instead draws
    its n once and keeps it: A x_s = y_s - alpha_s n exactly, and the weights are the density that
    the reverse kernel gives it; this is `SMCDiff` for any linear operator. Consistent for an ideal
    reverse kernel (`smcdiff.kernels.Exact`). An exact observation has n = 0, and the two draws are
    the same; it is then held at every step.

    Only coordinates whose noise is at most half of what they see of the prior are held so: where
    the singular value is small a draw of n puts V' x far outside the prior. The others enter by a
    twist, the density of their data under N(s V' m(x_t), 1 + s^2 spread_t).

    Cost: one network evaluation a particle and step; one decomposition of the operator a run.
    """

    path_weighted: ClassVar[bool] = True

    def takes_exact(self, weighted):
        """Always."""
        return True

    def check(self, model):
        """Raises ``InputError`` unless the observation is linear-Gaussian."""
        require_singular(model, "FPS")

    def prepare(self, key, model):
        """The singular system, and one path from clean to noisy."""
        system = singular_system(model)
        settled = held(model, system.values)
        return _Path(system, settled, *forward_noise(key, model, settled))

    @staticmethod
    def _on_path(key, shared: _Path, transition: Transition, level, path, own_noise):
        """A draw whose held coordinates are on the path, and the log density that p gives them."""
        system = shared.system
        scaled = own_noise / jnp.where(shared.held, system.values, 1.0)
        target = level.alpha * (system.data - scaled) + path
        return transition.sample_pinned(key, system.right, shared.held, target)

    def start(self, key, model, shared):
        """x_T on the path, for a noise of its own; weighed by the terminal density."""
        terminal, level = model.problem.prior.terminal(), model.level(0)
        if not model.weighted:
            return self._smoothed(key, model, shared, terminal, 0), jnp.zeros(())
        key_noise, key_draw = jax.random.split(key)
        system = shared.system
        own = jnp.sqrt(system.noise) * jax.random.normal(key_noise, system.noise.shape)
        x, log_p = self._on_path(key_draw, shared, terminal, level, shared.noise[0], own)
        # The density of held data is that of V' x over the singular values, without a misfit.
        volume = jnp.log(jnp.where(shared.held, system.values, 1.0)) - 0.5 * LOG_2PI * shared.held
        return x, log_p - jnp.sum(volume)

    def guide(self, model, shared, x, step):
        """The twist of the coordinates that are not held; one network evaluation."""
        return weak_guide(model, x, step, shared.log_weak)

    def propose(self, key, model: ReverseModel, shared, x, guide, step):
        """The reverse kernel given the path's next point."""
        transition = model.transition(x, guide, step)
        if not model.weighted:
            return self._smoothed(key, model, shared, transition, step + 1), jnp.zeros(())
        system, t, s = shared.system, model.level(step), model.level(step + 1)
        own = jnp.zeros_like(system.observed)
        if not model.problem.noise_free:
            noisy = t.alpha * system.observed + system.values * shared.noise[step]
            own = (noisy - system.project(x)) / t.alpha
        moved, log_p = self._on_path(key, shared, transition, s, shared.noise[step + 1], own)
        free = model.no_density(step)
        # As for SMCDiff: what is left at a Dirac is the change of variables from alpha y to y.
        jacobian = jnp.sum(shared.held) * jnp.log(t.alpha)
        log_ratio = jnp.where(free, jacobian, log_p - shared.log_forward[step])
        return jnp.where(free, transition.sample(key), moved), log_ratio

    def _smoothed(self, key, model, shared: _Path, transition: Transition, step):
        """The published draw: y_s observes x_s with noise alpha_s (whitened)."""
        system, level = shared.system, model.level(step)
        if model.problem.noise_free:
            own = jnp.zeros_like(system.observed)
            return self._on_path(key, shared, transition, level, shared.noise[step], own)[0]
        rows = system.values[:, None] * system.right
        y = level.alpha * system.observed + system.values * shared.noise[step]
        noise = level.alpha**2 * jnp.eye(system.values.shape[0])
        return transition.conditioned(rows, y - rows @ transition.mean, noise).sample(key)

    def final(self, model, shared, x):
        """The likelihood of what is not held; the rest cancels against each particle's noise."""
        return shared.log_weak(x, 0.0)
