"""SMC-Diff and FPS: particles held to a simulated forward path of the observation."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.base.module import Module
from smcdiff.diffusion import kernels
from smcdiff.diffusion.laws import Law, Mixture, conditioned_along
from smcdiff.diffusion.schedules import Level
from smcdiff.problem import ReverseModel
from smcdiff.proposals._held import Holding
from smcdiff.proposals._shared_path import Along, SharedPath
from smcdiff.proposals.base import Draw
from smcdiff.twists import Evaluation
from smcdiff.twists._singular import SingularSystem


class OnPath(Holding):
    """Base class of the samplers whose particles share a path; see `SharedPath`.

    Within a chain the filter targets the posterior given the path, and the evidence of a chain is
    p(path) / q(path given y), whose mean over paths is the evidence. For an ideal reverse kernel it
    is the same for every path. For a learned one it differs from path to path, by how far the
    kernel is from the reverse of the forward process: with the shipped digits by some nat. To count
    chains by it would be right for the law of the learned chain, with very many of them; with few
    it leaves the one whose path the network happens to like. So chains count alike
    (``posterior.chains_alike``), as they would for an ideal kernel. Below its level u a direction
    takes x_u for y, which is the declared likelihood as far as the kernel is ideal there.
    """

    def counts_chains_alike(self, model: ReverseModel) -> bool:
        """True unless the kernel is ideal: how likely it finds a path says nothing of the draws."""
        return not isinstance(model.kernel, kernels.Exact)

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """The singular system, and one path."""
        return SharedPath.draw(key, model)

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: Any) -> Draw:
        """x_T on the path, weighed by the terminal density."""
        along = prepared.condition(model.problem.prior.terminal(), model.first)
        x = prepared.put_on(along.law.sample(key), model.first)
        return Draw(x, along.log_density - prepared.log_volume)

    def evaluate(
        self, model: ReverseModel, prepared: Any, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """No twist; one network evaluation."""
        return Evaluation(jnp.zeros((), x.dtype), model.denoise_for_kernel(x, t))

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """The path's next point, the rest from the reverse kernel; weight p(y_s given x_t)."""
        transition = model.transition(x, evaluation.denoised, t, s)
        free = model.has_no_density(s)
        along = prepared.condition_step(transition, x, t, s)
        on_path = prepared.put_on(along.law.sample(key), s)
        key_kernel, key_landing = jax.random.split(key)
        clean = transition.sample(key_kernel)
        clean = prepared.land(key_landing, clean, t, model.problem.prior.spread(t))
        drawn = jnp.where(free, clean, on_path)
        shift, log_ratio = self.steer(prepared, along, evaluation, drawn)
        log_weight = along.log_density - prepared.log_forward[t.index] + log_ratio
        moved = jnp.where(free, drawn, drawn + shift)
        return Draw(moved, jnp.where(free, 0.0, log_weight))

    def steer(
        self, path: SharedPath, along: Along, evaluation: Evaluation, drawn: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """By how much a draw is moved beside the path, and log p - log q of that; here not."""
        return jnp.zeros_like(drawn), jnp.zeros((), drawn.dtype)

    def final(self, model: ReverseModel, prepared: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The likelihood of what is never on the path; the rest was weighed along it."""
        return prepared.held.log_weak(x)


class SMCDiff(OnPath):
    """SMC-Diff (Trippe et al. 2022, algorithm 1): replacement with the weights p(y_s given x_t).

    One forward path of the observed entries is drawn for each chain and shared by its particles,
    which are weighed by how well they predict it. As published where the observation is exact.
    With observation noise the path begins, for each entry, at the level whose noise is that of y
    (`TwistedPath`, which is this sampler for any linear operator, with a twist that steers).
    Consistent for an ideal reverse kernel (`smcdiff.kernels.Exact`). With weights off it is
    `Replacement` along a path.

    Cost: one network evaluation per particle and step.
    """

    masks_only: ClassVar[bool] = True


class FPS(OnPath):
    """Condition every reverse step on a simulated path y_t of the observation.

    The path diffuses y with what the operator makes of the state's noise, y_t = (alpha_t / alpha_s)
    y_s + A z, so that y_t = A x_t + alpha_t n with n the noise of y. One path is drawn for each
    chain. With weights off x_s is drawn from the reverse kernel given y_s, whose law given x_s is
    N(A x_s, alpha_s^2 sigma_y^2 I) (Dou and Song 2024, algorithm 1).

    n is the same at all levels. The paper's particle filter (algorithm 2) takes it for independent
    noise, and so counts the likelihood once per level. With weights on, n is instead taken for the
    diffusion's own noise up to the level u at which it is as large: the path begins there, with
    V' x_u = alpha_u times what y says of it, and is weighed by the density that the reverse kernel
    gives it. This is `SMCDiff` for any linear operator. Consistent for an ideal reverse kernel
    (`smcdiff.kernels.Exact`). An exact observation has n = 0, and with weights on or off it is held
    at every step.

    Cost: one network evaluation per particle and step; one decomposition of the operator per run.
    """

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> Any:
        """The singular system, and one path."""
        if model.weighted or model.problem.is_noise_free:
            return SharedPath.draw(key, model)
        return PublishedPath.draw(key, model)

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: Any) -> Draw:
        """x_T on the path."""
        if isinstance(prepared, SharedPath):
            return super().start(key, model, prepared)
        law = prepared.condition(model.problem.prior.terminal(), model.first)
        return Draw(law.sample(key), jnp.zeros(()))

    def propose(
        self,
        key: PRNGKeyArray,
        model: ReverseModel,
        prepared: Any,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> Draw:
        """The reverse kernel given the path's next point."""
        if isinstance(prepared, SharedPath):
            return super().propose(key, model, prepared, x, evaluation, t, s)
        law = prepared.condition(model.transition(x, evaluation.denoised, t, s), s)
        return Draw(law.sample(key), jnp.zeros(()))

    def final(self, model: ReverseModel, prepared: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
        """As the others; the published draw is not weighed."""
        is_published = isinstance(prepared, PublishedPath)
        return jnp.zeros((), x.dtype) if is_published else super().final(model, prepared, x)


class PublishedPath(Module):
    """The path y_t of a noisy observation as published, with the noise of y at every level.

    Attributes:
        system: the singular system.
        noise: (num_steps + 1, r) of V' x_t: y_t is alpha_t y + s noise_t in singular coordinates.
    """

    system: SingularSystem
    noise: Float[Array, "levels r"]

    @classmethod
    def draw(cls, key: PRNGKeyArray, model: ReverseModel) -> PublishedPath:
        """One path, from clean to noisy."""
        system = SingularSystem.of(model)
        draws = jax.random.normal(key, (model.num_steps, system.values.shape[0]))

        def noisier(noise, step):
            shrink, scale = kernels.forward(model.level(step + 1), model.level(step))
            noise = shrink * noise + scale * draws[step]
            return noise, noise

        clean, steps = jnp.zeros_like(system.values), jnp.arange(model.num_steps)
        _, noise = jax.lax.scan(noisier, clean, steps, reverse=True)
        return cls(system, jnp.concatenate([noise, clean[None]]))

    def condition(self, law: Mixture, s: Level) -> Law:
        """A law of x_s given that y_s observes it with noise alpha_s (whitened)."""
        system = self.system
        target = s.alpha * system.observed + system.values * self.noise[s.index]
        variances = jnp.full_like(system.values, s.alpha**2)
        residual = target - system.project(law.mean)
        return conditioned_along(law, system.directions, system.values, residual, variances)
