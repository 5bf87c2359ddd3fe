"""How many particles and chains, and which kernel, a run from the command line has."""

import jax.numpy as jnp
import pytest

from smcdiff import kernels, load_prior, operators, proposals
from smcdiff.cli.sampler import Sampler


@pytest.mark.parametrize(
    ("proposal", "particles", "chains", "expected"),
    [
        (None, None, None, (4, 64)),  # chosen: TwistedPath, for half an image and a learned prior
        (proposals.Twisted(), None, None, (64, 4)),
        (None, 16, None, (16, 4)),
        (None, None, 2, (4, 2)),
        (None, 16, 2, (16, 2)),
    ],
)
def test_sizes_that_were_left_out_suit_the_proposal(proposal, particles, chains, expected):
    sized = _sized(Sampler(proposal, False, particles, 60, chains, None), 0.1)
    assert (sized.particles, sized.chains) == expected
    assert sized.kernel is None


@pytest.mark.parametrize(
    ("proposal", "unweighted", "kernel"),
    [
        (proposals.TwistedPath(), False, kernels.AnalyticDPM()),
        (proposals.TwistedPath(), True, None),
        (proposals.PiGDM(), False, None),
    ],
)
def test_little_noise_takes_the_kernel_that_leaves_its_spread(proposal, unweighted, kernel):
    sized = _sized(Sampler(proposal, unweighted, 4, 60, 4, None), 0.04)
    assert sized.smc(True).settings.kernel == kernel


def _sized(sampler, noise):
    prior = load_prior("mnist")
    operator = operators.Mask.of(jnp.arange(784).reshape(prior.event_shape) % 28 < 14)
    return sampler.sized(prior, operator, noise, jnp.zeros(operator.out_shape))
