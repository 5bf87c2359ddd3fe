"""The reverse diffusion under a proposal, as the conditional filter holds it to a path."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from smcdiff.base.module import Module
from smcdiff.errors import InputError
from smcdiff.problem import ReverseModel
from smcdiff.proposals import Proposal
from smcdiff.proposals._own_path import OwnPath
from smcdiff.sampler._steered_diffusion import Particle, SteeredDiffusion


class ConditionalDiffusion(Module):
    """The `smcdiff.smc.PathModel` of a reverse diffusion, with the steps of `SteeredDiffusion`.

    A particle's evaluation is that of its own x, so that the path costs what any particle does,
    under whatever twist a sweep has.

    Attributes:
        proposal: the sampler, which has a `law`.
        model: the reverse model.
        prepared: what the proposal prepared.
    """

    proposal: Proposal
    model: ReverseModel
    prepared: Any

    @property
    def _steered(self) -> SteeredDiffusion:
        return SteeredDiffusion(self.proposal, self.model, self.prepared)

    def init(
        self, key: PRNGKeyArray, kept: Float[Array, " d"], is_held: Bool[Array, ""]
    ) -> Particle:
        """A blank."""
        return self._steered.init(key)

    def step(
        self,
        key: PRNGKeyArray,
        t: Int[Array, ""],
        prev: Particle,
        kept: Float[Array, " d"],
        is_held: Bool[Array, ""],
    ) -> Particle:
        """The particle after the filter's step t, from 1: drawn, or at ``kept``."""
        model, proposal, prepared = self.model, self.proposal, self.prepared
        s = model.level(t - 1)

        def start() -> tuple[Array, Array]:
            x, log_ratio = proposal.start(key, model, prepared)
            return jnp.where(is_held, kept, x), log_ratio

        def move() -> tuple[Array, Array]:
            law = proposal.law(model, prepared, prev.x, prev.evaluation, model.level(t - 2), s)
            assert law is not None  # by `check_has_law`
            # Where the step is a function of x_t, the path's is that of its own x_t, as computed.
            keeps = is_held & ~model.has_no_density(s)
            x = jnp.where(keeps, kept, law.sample(key))
            return x, law.log_ratio(x)

        x, log_ratio = jax.lax.cond(t == 1, start, move)
        return self._steered.arrive(x, log_ratio, s, prev.evaluation)

    def log_potential(
        self, t: Int[Array, ""], prev: Particle | None, particle: Particle
    ) -> Float[Array, ""]:
        """As that of `SteeredDiffusion`."""
        return self._steered.log_potential(t, prev, particle)

    def trace(self, particle: Particle) -> Float[Array, " d"]:
        """Where it is: x."""
        return particle.x

    def log_link(
        self, t: Int[Array, ""], prev: Particle, kept: Float[Array, " d"]
    ) -> Float[Array, ""]:
        """Log p(kept given x_t) - log psi_t(x_t), which needs nothing but what the particle has."""
        model = self.model

        def start() -> Array:
            return jnp.zeros((), kept.dtype)

        def move() -> Array:
            before, s = model.level(t - 2), model.level(t - 1)
            transition = model.transition(prev.x, prev.evaluation.denoised, before, s)
            log_density = transition.log_prob(kept) - prev.evaluation.log_twist
            return jnp.where(model.has_no_density(s), -jnp.inf, log_density)

        return jax.lax.cond(t == 1, start, move)


def check_has_law(proposal: Proposal, model: ReverseModel) -> None:
    """Raises ``InputError`` unless the path of another sweep can be weighed under the proposal."""
    name = type(proposal).__name__
    if model.problem.is_noise_free:
        raise InputError(
            f"ParticleGibbs: site '{model.problem.observed_sites[0]}' is observed without noise"
            " (Delta), to which no path of another sweep could be held; use SMC, or give the site"
            " noise (dist.Normal)"
        )
    if not (can_be_held(proposal) and _gives_law(proposal, model)):
        raise InputError(
            f"ParticleGibbs: {name} has no law, or a start or an end of its own, so that a path"
            " that it has not drawn cannot be weighed;"
            " use proposals.Twisted(), MomentMatched(), LanczosMomentMatched(),"
            " KrylovMomentMatched() or Bootstrap(), or SMC"
        )


def can_be_held(proposal: Proposal) -> bool:
    """Whether a proposal's draws are those of its `Proposal.law`, and start and end of the rest."""
    kind = type(proposal)
    if kind is OwnPath:  # which starts with one weight for all
        return True
    same = all(getattr(kind, part) is getattr(Proposal, part) for part in ("start", "final"))
    return same and kind.law is not Proposal.law


def _gives_law(proposal: Proposal, model: ReverseModel) -> bool:
    """Whether the law is one; it is traced and not run."""

    def law(key: PRNGKeyArray, model: ReverseModel) -> Any:
        prepared = proposal.prepare(key, model)
        x, t, s = jnp.zeros(model.size), model.level(0), model.level(1)
        found = proposal.law(model, prepared, x, proposal.evaluate(model, prepared, x, t), t, s)
        return None if found is None else found.log_ratio(x)

    return jax.eval_shape(law, jax.random.key(0), model) is not None
