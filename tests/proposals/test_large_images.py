"""Operators of the package reach every sampler that decomposes, and no d x d matrix is made.

At a small size, where a matrix would be seen: the largest array of any program is a few images.
`experiments/large_images` runs them at 256 x 256 x 3.
"""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from smcdiff import InputError, kernels, operators, priors, proposals, schedules
from smcdiff.problem import ReverseModel, read

EVENT = (16, 16, 3)
SIZE = 768
KEY = jax.random.key(0)
BLUR = operators.GaussianBlur(EVENT, 1.5)
MASK = operators.Mask.random(jax.random.key(0), EVENT, 0.3)
OPERATORS = {
    "mask": MASK,
    "blur": BLUR,
    "block means": operators.BlockDownsample(EVENT, 4),
    "Fourier": operators.MaskedFourier.of(np.random.default_rng(1).random((16, 16)) < 0.3, EVENT),
    "circular": operators.Convolution(EVENT, np.ones((3, 3)) / 9, circular=True),
    "block means of a blur": operators.BlockDownsample(EVENT, 2) @ BLUR,
}
SAMPLERS = [
    proposals.DDRM(), proposals.MCGDiff(), proposals.PiGDM(), proposals.DAPS(), proposals.FPS(),
    proposals.TwistedPath(),    proposals.KrylovMomentMatched(), proposals.LanczosMomentMatched(),
]  # fmt: skip


def subprograms(value):
    if isinstance(value, ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, Jaxpr):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from subprograms(part)


def largest(jaxpr):
    """Entries of the largest array that a program makes."""
    sizes = [np.prod(v.aval.shape) for e in jaxpr.eqns for v in e.outvars]
    inner = [largest(j) for e in jaxpr.eqns for p in e.params.values() for j in subprograms(p)]
    return max([0, *sizes, *inner])


LEARNED = priors.DiffusionPrior(lambda x, t: 0.1 * x, schedules.Cosine(), EVENT, probe=False)


def reverse_model(operator, weighted=True, prior=LEARNED):
    """An image seen through an operator, by ordinary NumPyro code."""

    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(operator(x), 0.1).to_event(), obs=y)

    problem = read(model, (np.zeros(operator.out_shape, np.float32),))
    assert jax.eval_shape(problem.linear_observation).operator.structured
    levels = schedules.UniformLogSNR()(prior.schedule, 4)
    return ReverseModel(problem, kernels.DDIM(), levels, weighted)


@pytest.fixture(scope="module", params=OPERATORS)
def seen_model(request):
    return reverse_model(OPERATORS[request.param])


@pytest.fixture(scope="module")
def gaussian_model():
    return reverse_model(BLUR, prior=priors.Gaussian(np.zeros(EVENT), 2.0))


@pytest.mark.parametrize("proposal", SAMPLERS, ids=lambda p: type(p).__name__)
def test_no_matrix_is_made(seen_model, proposal):
    check_sizes(seen_model, proposal)


@pytest.mark.parametrize("proposal", SAMPLERS, ids=lambda p: type(p).__name__)
def test_no_matrix_is_made_of_an_isotropic_gaussian_prior(gaussian_model, proposal):
    """Its law of x_T is no standard normal, and conditioned on the data by some."""
    check_sizes(gaussian_model, proposal)


def test_what_would_need_a_matrix_of_a_large_image():
    event = (128, 128)
    prior = priors.GaussianMixture(np.ones(2), np.zeros((2, *event)), 1.0)
    model = reverse_model(operators.GaussianBlur(event, 1.0), prior=prior)
    prepared = jax.eval_shape(lambda key: SAMPLERS[1].prepare(key, model), jax.random.key(0))
    with pytest.raises(InputError, match="along 16384 directions of 16384 entries: .*PiGDM"):
        jax.eval_shape(lambda prepared: SAMPLERS[1].start(KEY, model, prepared), prepared)


def check_sizes(model, proposal):
    """Raises where a program makes an array of more entries than some images."""
    proposals.check_fits(proposal, model)
    traced = jax.make_jaxpr(lambda key: proposal.prepare(key, model), return_shape=True)
    prepare, prepared = traced(KEY)

    def step(key, prepared, x):
        t, s = model.level(1), model.level(2)
        evaluation = proposal.evaluate(model, prepared, x, t)
        start = proposal.start(key, model, prepared)
        return start, proposal.propose(key, model, prepared, x, evaluation, t, s)

    moved = jax.make_jaxpr(step)(KEY, prepared, np.zeros(SIZE, np.float32))
    # The 64 probes of a widened twist, padded, and the Krylov spaces of 32 and 33 directions.
    few = 90 * SIZE
    assert largest(prepare.jaxpr) <= few < SIZE * SIZE / 8
    assert largest(moved.jaxpr) <= few
    sizes = [np.prod(leaf.shape) for leaf in jax.tree.leaves(prepared)]
    assert max(sizes, default=0) <= 5 * SIZE  # the path of FPS has a row per level
