"""SMC-Diff and FPS: particles held to a simulated forward path of the observation."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smcdiff.diffusion import kernels
from smcdiff.diffusion.laws import Mixture, conditioned_along
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals._held import Held, Holding, log_normal
from smcdiff.proposals.base import Draw
from smcdiff.twists import Evaluation


class Path(Held):
    """The noise of one forward path of what is held, shared by the particles of a chain.

    Attributes:
        noise: (num_steps + 1, r) of V' x_t along the path: a particle whose clean value is z is at
            alpha_t z + noise_t.
        log_forward: (num_steps,) log density of the path's level n given level n + 1.
    """

    noise: Float[Array, "levels r"]
    log_forward: Float[Array, " steps"]

    @classmethod
    def draw(cls, key: PRNGKeyArray, model: ReverseModel) -> Path:
        """A path from clean to noisy."""
        held = Held.of(model)
        return cls(held.system, held.which, *_forward_noise(key, model, held.which))


def _forward_noise(
    key: PRNGKeyArray, model: ReverseModel, used: Bool[Array, " r"]
) -> tuple[Float[Array, "levels r"], Float[Array, " steps"]]:
    """The noise of a forward path at every level, the last zero, and its log densities."""
    draws = jax.random.normal(key, (model.num_steps, used.shape[0]))

    def forward(noise, step):
        shrink, scale = kernels.forward(model.level(step + 1), model.level(step))
        noisier = shrink * noise + scale * draws[step]
        scales = jnp.broadcast_to(scale, noisier.shape)
        return noisier, (noisier, log_normal(noisier, shrink * noise, scales, used))

    clean = jnp.zeros(used.shape)
    steps = jnp.arange(model.num_steps)
    _, (path, log_forward) = jax.lax.scan(forward, clean, steps, reverse=True)
    return jnp.concatenate([path, clean[None]]), log_forward


class _OnPath(Holding):
    """Each particle draws the noise of its own observation once, and keeps it along the path."""

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Path:
        """The singular system, and one path from clean to noisy."""
        return Path.draw(key, model)

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: Path) -> Draw:
        """x_T on the path, for a noise of its own; weighed by the terminal density."""
        key_own, key_draw = jax.random.split(key)
        own = prepared.scale * jax.random.normal(key_own, prepared.scale.shape)
        values = model.first.alpha * (prepared.system.data - own) + prepared.noise[0]
        law = prepared.pin(model.problem.prior.terminal(), values)
        x = law.sample(key_draw)
        return Draw(x, law.log_ratio(x) - prepared.log_volume)

    def evaluate(
        self, model: ReverseModel, prepared: Path, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """The twist of what is not held; one network evaluation."""
        return self.weigh_rest(model, prepared, x, t)

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: Path,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """The path's next point, the rest from the reverse kernel; weight p(y_s given x_t)."""
        transition = model.transition(x, evaluation.denoised, t, s)
        law = prepared.pin(transition, along_path(model, prepared, x, t, s))
        free = model.has_no_density(s)
        moved = jnp.where(free, transition.sample(key), law.sample(key))
        # Where the last step is a Dirac the path was weighed down to the last noisy level; what is
        # left is the change of variables from alpha y to y.
        jacobian = jnp.sum(prepared.which) * jnp.log(t.alpha)
        on_path = law.log_ratio(moved) - prepared.log_forward[t.index]
        return Draw(moved, jnp.where(free, jacobian, on_path))

    def final(self, model: ReverseModel, prepared: Path, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The likelihood of what is not held; the rest cancels against each particle's noise."""
        return prepared.log_weak(x, jnp.zeros((), x.dtype))


def along_path(
    model: ReverseModel, path: Path, x: Float[Array, " d"], t: Level, s: Level
) -> Float[Array, " r"]:
    """Where the held directions of a particle that is at x at level t are at level s."""
    clean = path.system.data
    if not model.problem.is_noise_free:
        # By its own small noise: what x itself rounds off would add up from step to step.
        seen = path.system.directions(x)
        clean = clean - (t.alpha * clean + path.noise[t.index] - seen) / t.alpha
    return s.alpha * clean + path.noise[s.index]


class SMCDiff(_OnPath):
    """SMC-Diff (Trippe et al. 2022, algorithm 1): replacement with the weights p(y_s given x_t).

    The noise of one forward path of the observed entries is drawn for each chain and shared by its
    particles; they are weighted by how well they predict the path. Consistent for an ideal reverse
    kernel (`smcdiff.kernels.Exact`), as published where the observation is exact. With observation
    noise each particle imputes clean entries y + noise of its own once and keeps them. With weights
    off it is `Replacement` along a path.

    Cost: one network evaluation per particle and step.
    """

    masks_only: ClassVar[bool] = True


class FPS(_OnPath):
    """Condition every reverse step on a simulated path y_t of the observation.

    The path diffuses y with what the operator makes of the state's noise, y_t = (alpha_t / alpha_s)
    y_s + A z, so that y_t = A x_t + alpha_t n with n the noise of y. One path is drawn for each
    chain. With weights off x_s is drawn from the reverse kernel given y_s, whose law given x_s is
    N(A x_s, alpha_s^2 sigma_y^2 I) (Dou and Song 2024, algorithm 1).

    n is the same at all levels. The paper's particle filter (algorithm 2) takes it for independent
    noise, and so counts the likelihood once per level. With weights on, each particle instead draws
    its n once and keeps it: A x_s = y_s - alpha_s n exactly, and the weights are the density that
    the reverse kernel gives it; this is `SMCDiff` for any linear operator. Consistent for an ideal
    reverse kernel (`smcdiff.kernels.Exact`). An exact observation has n = 0, and the two draws are
    the same; it is then held at every step.

    Only directions whose noise is at most half of what they see of the prior are held so: where
    the singular value is small a draw of n puts V' x far outside the prior. The others enter by a
    twist, the density of their data under N(s V' m(x_t), 1 + s^2 spread_t).

    Cost: one network evaluation per particle and step; one decomposition of the operator per run.
    """

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: Path) -> Draw:
        """x_T on the path."""
        if model.weighted:
            return super().start(key, model, prepared)
        terminal = model.problem.prior.terminal()
        return Draw(_smoothed(key, model, prepared, terminal, model.first), jnp.zeros(()))

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: Path,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """The reverse kernel given the path's next point."""
        if model.weighted:
            return super().propose(key, model, prepared, x, evaluation, t, s)
        transition = model.transition(x, evaluation.denoised, t, s)
        return Draw(_smoothed(key, model, prepared, transition, s), jnp.zeros(()))


def _smoothed(
    key: PRNGKeyArray, model: ReverseModel, path: Path, law: Mixture, s: Level
) -> Float[Array, " d"]:
    """The published draw: y_s observes x_s with noise alpha_s (whitened)."""
    system, noise = path.system, path.noise[s.index]
    if model.problem.is_noise_free:
        return path.pin(law, s.alpha * system.data + noise).sample(key)
    target = s.alpha * system.observed + system.values * noise
    variances = jnp.full_like(system.values, s.alpha**2)
    residual = target - system.project(law.mean)
    return conditioned_along(law, system.directions, system.values, residual, variances).sample(key)
