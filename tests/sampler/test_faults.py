"""What a failed run is told: which part of the model is at fault, and cures that fit the run."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import priors, proposals
from smcdiff.diffusion.schedules import Cosine, UniformLogSNR
from smcdiff.problem import ReverseModel, read
from smcdiff.sampler import _faults as faults

NORMAL = priors.Gaussian(jnp.zeros(3), 1.0)
Y = jnp.array([0.5, 0.2, 1.0])


def truncated(y=None):
    """The density is +inf where the mean is so far below zero that nothing is left above it."""
    x = numpyro.sample("x", NORMAL)
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.TruncatedNormal(x, scale, low=0.0), obs=y)


def of_factor(log_density, prior=NORMAL):
    def model():
        numpyro.factor("odd", log_density(numpyro.sample("x", prior)))

    return read(model)


def test_a_density_that_overflows_is_named_with_the_parameters():
    fault = faults.likelihood_fault(read(truncated, (), {"y": Y}))
    assert fault is not None and "site 'y' is +inf at" in fault
    # About 3 % of the draws of the prior; less than 12 % of 256 with three standard errors.
    assert 0.0 < float(fault.split("+inf at ")[1].split("%")[0]) < 12.0
    scale = float(fault.split("scale = ")[1].split(",")[0])
    x = jnp.array([float(part) for part in fault.split("x = [")[1].split("]")[0].split(",")])
    terms = dist.TruncatedNormal(x, scale, low=0.0).log_prob(Y)
    # Of the values that are named, rounded as they are.
    assert jnp.any(jnp.isposinf(terms)) or jnp.min(x) / scale < -5.0


def test_nan_in_a_large_event_is_named_by_its_point():
    prior = priors.Gaussian(jnp.zeros(20), 1.0)
    problem = of_factor(lambda x: jnp.where(x[3] > 2.0, jnp.nan, 0.0), prior)
    fault = faults.likelihood_fault(problem)
    assert fault is not None and "site 'odd' is NaN" in fault
    index = int(fault.split("x = prior.typical_points(256)[")[1].split("]")[0])
    assert prior.typical_points(256)[index, 3] > 2.0


def test_minus_infinity_is_no_fault():
    problem = of_factor(lambda x: jnp.where(x[0] > 1.0, -jnp.inf, 0.0))
    assert faults.likelihood_fault(problem) is None
    assert faults.impossible_data(problem) is None
    impossible = of_factor(lambda x: jnp.where(x[0] < 30.0, -jnp.inf, 0.0))
    assert "site 'odd' is zero at 100.0%" in str(faults.impossible_data(impossible))


def test_a_gradient_that_is_nan_behind_a_where():
    """The value is 0 below zero; the derivative of the root there is NaN all the same."""
    problem = of_factor(lambda x: -jnp.where(x[0] > 0.0, jnp.sqrt(x[0]), 0.0))
    assert faults.likelihood_fault(problem) is None
    fault = faults.gradient_fault(problem)
    assert fault is not None and "its gradient is not" in fault and "Bootstrap" in fault
    assert float(fault.split("x = [")[1].split(",")[0]) <= 0.0
    assert faults.gradient_fault(of_factor(lambda x: -jnp.sum(x**4))) is None


def learned():
    return priors.DiffusionPrior(lambda x, t: 0.5 * x, Cosine(), (3,), probe=False)


@pytest.mark.parametrize(
    ("proposal", "prior", "likelihood", "named", "not_named"),
    [
        (proposals.DPS(), learned, dist.Normal, ["smaller scale", "threshold", "PiGDM"], ["Boot"]),
        (proposals.Twisted(), learned, dist.Cauchy, ["threshold", "Bootstrap"], ["scale", "PiGDM"]),
        (proposals.MomentMatched(), lambda: NORMAL, dist.Normal, ["PiGDM"], ["thres", "Moment"]),
        (proposals.Rejuvenated(proposals.Bootstrap()), learned, dist.Cauchy, ["thres"], ["scale"]),
    ],
)
def test_cures_fit_the_proposal_and_the_likelihood(proposal, prior, likelihood, named, not_named):
    def model(y):
        x = numpyro.sample("x", prior())
        numpyro.sample("y", likelihood(x, 1.0).to_event(1), obs=y)

    problem = read(model, (Y,))
    levels = UniformLogSNR()(problem.prior.schedule, 4)
    text = faults.cures(proposal, ReverseModel(problem, problem.prior.default_kernel(), levels))
    assert all(word in text for word in named)
    assert not any(word in text for word in not_named)
