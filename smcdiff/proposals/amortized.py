"""Amortisation: a network that was trained on pairs of event and observation."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array

from smcdiff.errors import InputError
from smcdiff.priors.base import DiffusionDistribution
from smcdiff.proposals.base import ReverseModel
from smcdiff.proposals.learned_guidance import GuidedMean, Means, require_same_process


class Conditional(Protocol):
    """What learns p(x_0 given y) for every y: see `smcdiff.load_conditional`."""

    def given(self, y: Array) -> DiffusionDistribution:
        """The diffusion prior given an observation; ``InputError`` where y has another shape."""
        ...


class Amortized(GuidedMean):
    """Draws from a conditional network s(x_t, y, t) (Batzolis et al. 2021, section 3).

    The network was trained on pairs (x_0, y) of the same model (``smcdiff train amortized``), so
    no likelihood enters: with weights off the draws are as good as the training and no better, and
    change with nothing in the model but y. With weights on it is a proposal like any other: the
    target is what the model declares, and the network's bias is corrected. Consistent; without a
    twist, the observation is weighed once, at the end.

    Cost: two network evaluations a particle and step, with weights off one (not with
    `smcdiff.kernels.Exact`).

    Attributes:
        network: the conditional network.
    """

    network: Conditional

    def check(self, model):
        """Raises ``InputError`` unless observation, event and noise schedule are the network's."""
        require_same_process("Amortized", self.prepare(jax.random.key(0), model), model)

    def prepare(self, key, model):
        """The network, given the observation."""
        observations = model.problem.observations()
        if len(observations) != 1:
            raise InputError(
                f"Amortized: the model observes the sites {sorted(observations)}; the network was"
                " trained on one"
            )
        (y,) = observations.values()
        return self.network.given(y)

    def guide(self, model: ReverseModel, shared: DiffusionDistribution, x, step):
        """The conditional mean, and the prior's where weights or an exact kernel compare them."""
        t = model.level(step)
        given = jnp.ravel(shared.denoise(model.event(x), t.time))
        compared = model.weighted or not model.kernel.uses_denoised
        plain = model.denoise(x, t) if compared else given
        return jnp.zeros(()), Means(plain, given)
