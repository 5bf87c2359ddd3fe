"""The sampler of ``smcdiff solve``, from its options."""

from __future__ import annotations

import dataclasses
import re

import numpyro
import numpyro.distributions as dist
from jaxtyping import Array

from smcdiff import proposals
from smcdiff.base._progress import Progress
from smcdiff.diffusion.kernels import AnalyticDPM, Kernel
from smcdiff.errors import InputError, did_you_mean
from smcdiff.operators import LinearOperator
from smcdiff.priors import Prior
from smcdiff.problem import read
from smcdiff.proposals import choose
from smcdiff.sampler.smc import SMC

_CHAINS = 4
"""Enough to see whether they agree."""
_LITTLE_NOISE = 0.05
"""Below it DDPM's kernel, which takes x_0 for known, leaves too little spread where y is seen."""


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The options of ``smcdiff solve`` that say how the posterior is sampled.

    Attributes:
        proposal: an object of `smcdiff.proposals`; None chooses from the problem's structure.
        unweighted: switch the weights off.
        particles: particles per chain; None leaves it to `sized`.
        steps: reverse diffusion steps.
        chains: independent runs; None leaves it to `sized`.
        batch_size: particles in the network at once; None is all of them.
        kernel: reverse kernel; None leaves it to `SMC`, and where there is little noise to `sized`.
    """

    proposal: proposals.Proposal | None
    unweighted: bool
    particles: int | None
    steps: int
    chains: int | None
    batch_size: int | None
    kernel: Kernel | None = None

    def check(self) -> None:
        """Raises ``InputError`` where a number is out of range; no prior is needed for that."""
        particles = 1 if self.particles is None else self.particles
        chains = 1 if self.chains is None else self.chains
        dataclasses.replace(self, particles=particles, chains=chains).smc(True)

    def sized(self, prior: Prior, operator: LinearOperator, noise: float, y: Array) -> Sampler:
        """With the particles, chains and kernel that suit the proposal, where they were left out.

        Where only the particles were named there are 4 chains.
        """
        proposal = self.proposal or choose(read(_model, (prior, operator, noise), {"y": y}))[0]
        particles, chains = self.particles, _CHAINS
        if particles is None:
            particles, chains = proposal.usual_size
        if self.chains is not None:
            chains = self.chains
        kernel = self._kernel(prior, proposal, noise)
        return dataclasses.replace(self, particles=particles, chains=chains, kernel=kernel)

    def _kernel(self, prior: Prior, proposal: proposals.Proposal, noise: float) -> Kernel | None:
        """The kernel of `TwistedPath` under little noise: see docs/which-proposal.md."""
        is_own = isinstance(proposal, proposals.TwistedPath) and not self.unweighted
        is_known = prior.denoising_error is not None and prior.default_kernel().ends_in_dirac
        return AnalyticDPM() if is_own and is_known and noise < _LITTLE_NOISE else self.kernel

    def smc(self, progress: bool | Progress) -> SMC:
        """The sampler, which calls ``progress`` between two pieces of a run.

        Its model takes a prior, an operator and the noise's standard deviation.
        """
        assert self.particles is not None and self.chains is not None, "call sized first"
        return SMC(
            _model, self.proposal, num_particles=self.particles, num_steps=self.steps,
            num_chains=self.chains, weighted=not self.unweighted, batch_size=self.batch_size,
            kernel=self.kernel, progress_bar=progress,
        )  # fmt: skip


def _model(prior, operator, noise, y):
    """The likelihood, as any NumPyro model; prior and operator are pytrees, so arguments."""
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator(x), noise).to_event(), obs=y)


def named_proposal(name: str) -> proposals.Proposal | None:
    """A proposal with its defaults, by its class's name; case and hyphens do not matter.

    Raises:
        InputError: an unknown name, or a proposal that needs a learned conditional model.
    """
    if name == "auto":
        return None
    known = {_hyphened(sampler.__name__): sampler for sampler in proposals.SAMPLERS}
    for spelling, sampler in known.items():
        if name.lower().replace("-", "") == spelling.replace("-", ""):
            return sampler()
    if name.lower() in {_hyphened(sampler.__name__) for sampler in proposals.CONDITIONAL_SAMPLERS}:
        raise InputError(
            f"--proposal {name}: it needs a learned conditional model, so it runs from Python only:"
            " proposals of smcdiff.SMC"
        )
    raise InputError(f"--proposal {name}: {did_you_mean(name, ['auto', *known])}")


def _hyphened(word: str) -> str:
    """MomentMatched is moment-matched, RePaint repaint, and DPS dps."""
    return re.sub(r"(?<=[a-z]{3})(?=[A-Z][a-z])", "-", word).lower()
