"""How many particles and chains a run from the command line has."""

import jax.numpy as jnp
import pytest

from smcdiff import load_prior, operators, proposals
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
    prior = load_prior("mnist")
    operator = operators.Mask.of(jnp.arange(784).reshape(prior.event_shape) % 28 < 14)
    sampler = Sampler(proposal, False, particles, 60, chains, None)
    sized = sampler.sized(prior, operator, 0.1, jnp.zeros(operator.out_shape))
    assert (sized.particles, sized.chains) == expected
