"""Particles held, where y sees them, to the path of the particle that was kept.

`TwistedPath` holds particles to a forward path of the observation, and targets what it would be if
the reverse kernel were ideal. A Markov chain can do better: it holds them to V' x_t of its own path
x_T, ..., x_1 instead, at every noisy level, which is a Gibbs step on the rest of the path, exact
for any reverse kernel. The last step is the kernel's own, or if it has a density that given y, and
is weighed by the declared likelihood. What is held is moved by `smcdiff.sampler._path_noise`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from smcdiff.diffusion.laws import Law
from smcdiff.diffusion.schedules import Grid, Level
from smcdiff.errors import InputError
from smcdiff.priors import Prior
from smcdiff.problem import ReverseModel
from smcdiff.proposals._held import Held
from smcdiff.proposals._shared_path import Along, SharedPath
from smcdiff.proposals.base import Draw, Proposal
from smcdiff.proposals.paths import OnPath
from smcdiff.twists import Evaluation
from smcdiff.twists._singular import SingularSystem


class OwnPath(Proposal):
    """See the module.

    Attributes:
        inner: how particles are evaluated and steered beside the path.
    """

    inner: OnPath
    follows_path: ClassVar[bool] = True

    def check(self, model: ReverseModel) -> None:
        """As that of a forward path; and the kernel must be an isotropic Gaussian."""
        self.inner.check(model)
        x, t, s = jnp.zeros(model.size), model.level(0), model.level(1)
        law = jax.eval_shape(lambda x: model.transition(x, x, t, s), x)
        if not law.isotropic:
            raise InputError(
                f"ParticleGibbs: {type(self.inner).__name__} needs a reverse kernel that is an"
                f" isotropic Gaussian, which {type(model.kernel).__name__} is not; use"
                " kernels.DDIM() or AnalyticDPM(), or proposals.MomentMatched()"
            )

    def default_grid(self, prior: Prior) -> Grid:
        """As the forward path's."""
        return self.inner.default_grid(prior)

    def prepare(self, key: PRNGKeyArray, model: ReverseModel) -> SharedPath:
        """The singular system, which of its directions are held, and a path of zeros."""
        system = SingularSystem.of(model)
        signal = 2.0 * jnp.log(jnp.where(system.seen, system.values, 1.0))
        held = Held(system, system.seen & (signal >= model.first.log_snr))
        last = model.level(model.num_steps - 1)
        own = jax.tree.map(lambda field: jnp.broadcast_to(field, signal.shape), last)
        values = jnp.zeros((model.num_steps + 1, *signal.shape))
        return SharedPath(held, own, values, jnp.zeros(model.num_steps))

    def start(self, key: PRNGKeyArray, model: ReverseModel, prepared: SharedPath) -> Draw:
        """x_T on the path; its density there is the same for all particles."""
        along = prepared.condition(model.problem.prior.terminal(), model.first)
        return Draw(prepared.put_on(along.law.sample(key), model.first), along.log_density)

    def evaluate(
        self, model: ReverseModel, prepared: SharedPath, x: Float[Array, " d"], t: Level
    ) -> Evaluation:
        """As the forward path's."""
        return self.inner.evaluate(model, prepared, x, t)

    def law(
        self,
        model: ReverseModel,
        prepared: SharedPath,
        x: Float[Array, " d"],
        evaluation: Evaluation,
        t: Level,
        s: Level,
    ) -> OnOwnPath:
        """The reverse kernel given the path's next point, steered beside it."""
        transition, held = model.transition(x, evaluation.denoised, t, s), prepared.held
        # The last step is given y, where it has a density.
        given_y = s.is_clean & ~model.has_no_density(s)
        used = jnp.where(given_y, held.which, prepared.on_path(s))
        target = jnp.where(given_y, held.system.data, prepared.values[s.index])
        variances = jnp.where(given_y, held.scale**2, 0.0)
        gains = used.astype(transition.mean.dtype)
        along = Along.of(prepared, transition, used, gains, target, variances)
        return OnOwnPath(self.inner, prepared, along, evaluation, s, given_y)


class OnOwnPath(Law):
    """The law of x_s on the path.

    Attributes:
        inner: how it is steered.
        path: that is held.
        along: the reverse kernel given the path.
        evaluation: where the step begins.
        s: the level.
        given_y: whether it is not the path that is held, but the law that is given y.
    """

    inner: OnPath
    path: SharedPath
    along: Along
    evaluation: Evaluation
    s: Level
    given_y: Bool[Array, ""]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        """One draw."""
        drawn = self.path.put_on(self.along.law.sample(key), self.s)
        return drawn + self._steer(drawn)[0]

    def log_ratio(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log p - log q at x on the path, p having the density of what is held."""
        shift, _ = self._steer(x)  # which is the same for all x
        before = x - shift
        drawn = jnp.where(self.given_y, self.along.law.log_ratio(before), self.along.log_density)
        return drawn + self._steer(before)[1]

    def _steer(self, drawn: Float[Array, " d"]) -> tuple[Array, Array]:
        return self.inner.steer(self.path, self.along, self.evaluation, drawn)


def put_values(prepared: SharedPath, values: Float[Array, "levels r"]) -> SharedPath:
    """What was prepared, with V' x_t of a path at the noisy levels."""
    clean = jnp.zeros_like(values[:1])
    return dataclasses.replace(prepared, values=jnp.concatenate([values, clean]))


def unwrapped(proposal: Any) -> Any:
    """The proposal that the user knows."""
    return proposal.inner if isinstance(proposal, OwnPath) else proposal
