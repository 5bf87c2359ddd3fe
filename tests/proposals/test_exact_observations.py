"""Exact observations: who takes them, who refuses, and what a run leaves behind.

Evidence and moments with weights on are in `test_consistency`.
"""

import dataclasses

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.stats import norm

from smcdiff import SMC, InputError, Posterior, exact, kernels, priors, proposals, schedules
from smcdiff.problem import ReverseModel, read
from tests.proposals.models import DENSE, GAUSSIAN, MASK, Y, exact_model, reverse_model

LOG_SNR = np.linspace(-10.0, 10.0, 21)
# The optimal denoiser of standard normal data, and its error 1 / (1 + SNR).
LEARNED = priors.DiffusionPrior(
    lambda x, t: schedules.Cosine().alpha(t) * x,
    schedules.Cosine(),
    (3,),
    denoising_error=priors.DenoisingError(
        *map(jnp.asarray, (LOG_SNR, 1.0 / (1.0 + np.exp(LOG_SNR))))
    ),
)
BARE = priors.DiffusionPrior(lambda x, t: 0.5 * x, schedules.Cosine(), (3,))
TAKERS = [
    proposals.MCGDiff(), proposals.DDRM(), proposals.DDRM(eta_b=0.5), proposals.PiGDM(),
    proposals.FPS(), proposals.Replacement(), proposals.SMCDiff(), proposals.RePaint(2),
]  # fmt: skip
REFUSERS = [
    proposals.Bootstrap(), proposals.Twisted(), proposals.MomentMatched(), proposals.DAPS(),
    proposals.KrylovMomentMatched(), proposals.ClassifierGuidance(lambda x, t: jnp.sum(x)),
    proposals.ClassifierFree(LEARNED), proposals.Rejuvenated(proposals.Twisted()),
]  # fmt: skip


def name(proposal):
    return type(proposal).__name__


def sampler(proposal=None, **options):
    options = {"num_particles": 16, "num_steps": 4, "progress_bar": False, **options}
    return SMC(exact_model, proposal, **options)


def matrix_for(proposal):
    return MASK if proposal.masks_only else DENSE


@pytest.mark.parametrize("proposal", TAKERS, ids=name)
def test_unweighted_draws_satisfy_the_observation(proposal):
    """With the default kernel, whose last step is a Dirac."""
    matrix = matrix_for(proposal)
    posterior = sampler(proposal, weighted=False).run(jax.random.key(0), BARE, matrix, y=Y)
    assert "DDIM" in posterior.attrs["kernel"]
    x = posterior.samples["x"][0]
    np.testing.assert_allclose(x @ matrix.T, np.broadcast_to(Y, (16, 2)), atol=1e-4)


def test_evidence_is_with_respect_to_the_range_of_the_operator():
    """Repeated rows S A, S of full column rank: p(A x = y) over the volume sqrt(det S' S)."""
    repeat = np.float32([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    truth = exact.linear_gaussian_posterior(GAUSSIAN, DENSE, Y, 0.0).log_evidence
    expected = truth - 0.5 * np.linalg.slogdet(repeat.T @ repeat)[1]
    smc = sampler(proposals.FPS(), num_particles=1000)
    matrix, y = (repeat @ np.asarray(a) for a in (DENSE, Y))
    posterior = smc.run(jax.random.key(0), GAUSSIAN, matrix, y=y)
    # One log evidence varies by 0.02 here; a factor sqrt(2) would be 0.35.
    np.testing.assert_allclose(posterior.log_evidence, expected, atol=0.1)


def masked(prior, y=None):
    x = numpyro.sample("x", prior)
    with handlers.mask(mask=jnp.array([True, False, True])):
        numpyro.sample("y", dist.Delta(x), obs=y)


@pytest.fixture(scope="module")
def posterior():
    """The default for a learned prior and an exact, masked observation."""
    smc = SMC(masked, num_particles=512, num_steps=8, num_chains=2, progress_bar=False)
    return smc.run(jax.random.key(0), LEARNED, y=jnp.array([0.7, jnp.nan, -0.6]))


def test_default_is_fps_with_a_kernel_that_has_a_density(posterior):
    assert posterior.attrs["proposal"] == "FPS()"
    assert "'y' is observed without noise" in posterior.attrs["proposal_reason"]
    assert posterior.attrs["kernel"] == "AnalyticDPM()"
    x = posterior.samples["x"]
    np.testing.assert_allclose(x[..., 0], 0.7, atol=1e-4)
    np.testing.assert_allclose(x[..., 2], -0.6, atol=1e-4)
    # Standard normal data, for which the kernel is exact: log N(0.7; 0, 1) + log N(-0.6; 0, 1).
    # With 512 particles log Z_hat has a standard deviation of about 0.1.
    expected = norm.logpdf([0.7, -0.6]).sum()
    np.testing.assert_allclose(posterior.log_evidence, expected, atol=0.5)


def test_export_holds_no_garbage(posterior, tmp_path):
    np.testing.assert_array_equal(posterior.log_likelihood, 0.0)
    data = posterior.to_arviz()
    np.testing.assert_array_equal(data["log_likelihood"]["y"], 0.0)
    summary = arviz.summary(data, kind="stats")
    np.testing.assert_allclose(summary["mean"].iloc[[0, 2]], [0.7, -0.6], atol=1e-3)
    loaded = Posterior.load(posterior.save(tmp_path / "posterior.nc"))
    for field in dataclasses.fields(Posterior):
        ours, theirs = getattr(posterior, field.name), getattr(loaded, field.name)
        if isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
    assert np.isfinite(posterior.diagnose().evidence_spread)


@pytest.mark.parametrize("proposal", REFUSERS, ids=name)
@pytest.mark.parametrize("weighted", [True, False])
def test_samplers_that_divide_by_the_noise_refuse(proposal, weighted):
    model = dataclasses.replace(reverse_model(GAUSSIAN, DENSE, None, 4), weighted=weighted)
    expected = f"{name(proposal)}: site 'y' is observed without noise .*FPS.*dist.Normal"
    with pytest.raises(InputError, match=expected) as caught:
        proposals.check_fits(proposal, model)
    assert "\n" not in str(caught.value)


def test_dps_follows_an_exact_observation_with_weights_off_only():
    model = reverse_model(GAUSSIAN, DENSE, None, 4)
    with pytest.raises(InputError, match=r"DPS: site 'y'.*MCGDiff\(\) or weighted=False"):
        proposals.check_fits(proposals.DPS(), model)
    proposals.check_fits(proposals.DPS(), dataclasses.replace(model, weighted=False))


@pytest.mark.parametrize("kernel", [None, kernels.DDIM()])
def test_a_last_step_without_density_is_refused(kernel):
    with pytest.raises(InputError, match="'y' .*DDIM ends in a Dirac; use kernels.AnalyticDPM"):
        sampler(kernel=kernel).run(jax.random.key(0), BARE, DENSE, y=Y)


def test_masks_that_are_none():
    model = reverse_model(GAUSSIAN, DENSE, None, 4)
    with pytest.raises(InputError, match=r"SMCDiff needs .*single entries.*proposals.FPS\(\)"):
        proposals.check_fits(proposals.SMCDiff(), model)


LARGE = priors.Gaussian(np.zeros(5000), 1.0)


def large(mean):
    """A problem of 5,000 entries, more than a dense matrix is decomposed of."""

    def model(y):
        x = numpyro.sample("x", LARGE)
        numpyro.sample("y", dist.Delta(mean(x)).to_event(), obs=y)

    def model_of(y):
        problem = read(model, (y,))
        levels = schedules.UniformLogSNR()(problem.prior.schedule, 4)
        return ReverseModel(problem, kernels.Exact(), levels)

    return model_of


GAINS = np.append(np.ones(4999, np.float32), np.float32(0.0))
"""The last entry sees nothing."""


@pytest.fixture(scope="module")
def large_mask():
    return large(lambda x: GAINS * x)


@pytest.fixture(scope="module")
def large_model(large_mask):
    return large_mask(GAINS)


@pytest.mark.parametrize("proposal", TAKERS, ids=name)
def test_large_masks(large_model, proposal):
    proposals.check_fits(proposal, large_model)


def test_large_masks_by_default(large_mask, large_model):
    """What contradicts the entry that sees nothing is refused."""
    assert type(proposals.choose(large_model.problem)[0]) is proposals.FPS
    with pytest.raises(InputError, match="no 'x' satisfies this exact observation"):
        large_mask(np.full(5000, 0.01, np.float32))


def test_large_operators_of_no_known_structure():
    model = large(lambda x: x + jnp.roll(x, 1))(np.zeros(5000, np.float32))
    with pytest.raises(InputError, match="up to 4096 observations, not 5000; apply one"):
        proposals.check_fits(proposals.choose(model.problem)[0], model)
