"""One tester for every proposal: weights make it consistent with the exact posterior.

A proposal that `smcdiff.proposals` lists is tested by that alone; `SETTINGS` holds what differs
from the defaults. Evidence: the mean of Z_hat / Z over independent runs must lie within 3 standard
errors of 1 (and the standard error must be small enough for that to mean something). Posterior
means, covariances and mode weights: the runs' estimates, pooled by their evidence, within 4
standard errors of the exact ones; and the errors of all of them fall as N^-1/2. The reverse kernel
is exact, so that few steps suffice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import exact, priors, proposals, twists
from smcdiff.errors import InputError
from smcdiff.sampler._steered_diffusion import SteeredDiffusion
from smcdiff.smc import particle_filter, resampling
from tests.proposals.models import (
    DENSE,
    GAUSSIAN,
    MASK,
    NOISE,
    PRIORS,
    Y,
    conditional_sampler,
    reverse_model,
)  # fmt: skip

NUM_RUNS = 256


class Settings(NamedTuple):
    """How a proposal is tested where not by default; noises are factors of `NOISE`.

    The error is measured against N with wider noise: under a heavy tail it falls more slowly, until
    the tail is seen.
    """

    noise: float | np.ndarray = 1.0
    slope_noise: float = 2.0
    num_steps: int = 8
    num_particles: int = 64
    slope_particles: int = 64
    proposal: proposals.Proposal | None = None


# Draws that know the observation only from afar need more particles, or wider noise, for a
# variance of Z_hat / Z at which 256 runs prove anything. Twisted's weights on the mixture have so
# heavy a tail at 8 steps that 256 runs of 64 particles miss it: mean 0.89 (0.03); 0.989 (0.008)
# with 4,096 particles.
# DDRM and DAPS draw x_s afresh and DPS shifts it by a fixed length, whatever the kernel's width:
# coarse grids, and a small step, or the weights have no variance. Replacement draws the observed
# entries afresh at every level, as far apart as y is noisy: its weights vary by many nats unless
# that is little. Until the tails of their weights are seen, the error of the log evidence falls
# faster than N^-1/2, as its bias does, and a bounded moment's more slowly: `slope_particles`.
SETTINGS = {
    "Twisted": Settings(num_steps=32),
    "DDRM": Settings(slope_noise=8.0, num_steps=4, num_particles=128, slope_particles=512),
    "DAPS": Settings(num_steps=4),
    "DPS": Settings(proposal=proposals.DPS(0.03), num_particles=128, slope_particles=512),
    "Replacement": Settings(0.05, 0.05, num_steps=3, num_particles=512, slope_particles=2048),
    "PiGDM": Settings(slope_noise=4.0, slope_particles=256),
    "ClassifierFree": Settings(slope_particles=1024),
    "Amortized": Settings(slope_particles=1024),
    # Potentials that add up the likelihoods of m(x_t) are surer still than one alone.
    "FKSteering": Settings(noise=8.0, slope_noise=8.0, proposal=proposals.FKSteering(every=3)),
}
REGISTERED = {
    name: value
    for name, value in vars(proposals).items()
    if value in (*proposals.SAMPLERS, *proposals.CONDITIONAL_SAMPLERS)
}


def _registered(name, sampler):
    """The proposal, None for one that depends on the problem, and its settings."""
    settings = SETTINGS.get(name, Settings())
    if sampler in proposals.CONDITIONAL_SAMPLERS:
        return None, settings
    return settings.proposal or sampler(), settings


CASES = {
    **{name: _registered(name, sampler) for name, sampler in REGISTERED.items()},
    # A twist that is not widened wants noise as wide as the prior.
    "Twisted, plain": (proposals.Twisted(twist=twists.Likelihood()), Settings(noise=8.0)),
    # Raised to a power the likelihood of m(x_t) is a twist that is too sure, too.
    "Bootstrap, tempered": (
        proposals.Bootstrap(twist=twists.Likelihood(0.3)),
        Settings(noise=4.0),
    ),
    **{
        f"FKSteering, {type(potential).__name__}": (
            proposals.FKSteering(potential=potential, every=every),
            Settings(noise=8.0),
        )
        for potential, every in ((proposals.Difference(), 1), (proposals.Sum(), 4))
    },
    "Rejuvenated MomentMatched": (
        proposals.Rejuvenated(proposals.MomentMatched(), moves=2, jump=2),
        Settings(),
    ),
    # One direction in which y less a draw of the noise is outside the prior, or far outside it.
    "FPS, one weak": (proposals.FPS(), Settings(noise=np.array([1.0, 10.0]))),
    "FPS, one unseen": (proposals.FPS(), Settings(noise=np.array([1.0, 1e4]))),
    "SMCDiff, one weak": (proposals.SMCDiff(), Settings(noise=np.array([0.5, 10.0]))),
    "SMCDiff, one unseen": (proposals.SMCDiff(), Settings(noise=np.array([0.5, 1e4]))),
    "RePaint, one unseen": (proposals.RePaint(3, 2), Settings(noise=np.array([0.5, 1e4]))),
    "RePaint, far": (proposals.RePaint(3, 2), Settings()),
    "DDRM, DDPM's eta_b": (proposals.DDRM(1.0, None), SETTINGS["DDRM"]),
}
# The same, where the observation is exact: no noise is left to smooth the weights.
EXACT = {
    f"{name}, exact": (proposal, settings._replace(noise=0.0))
    for name, (proposal, settings) in CASES.items()
    if proposal is not None and proposal.takes_exact(weighted=True)
}
EXACT["DDRM, DDPM's eta_b, exact"] = (
    proposals.DDRM(1.0, None), SETTINGS["DDRM"]._replace(noise=0.0, num_particles=2048),
)  # fmt: skip
EXACT["Rejuvenated MCGDiff, exact"] = (
    proposals.Rejuvenated(proposals.MCGDiff(), jump=2), Settings(noise=0.0),
)  # fmt: skip
CASES |= EXACT
FAST = {
    *REGISTERED,
    "FPS, one unseen",
    *(f"{name}, exact" for name in ("MCGDiff", "DDRM", "SMCDiff")),
}


assert set(CASES) >= FAST


class Runs(NamedTuple):
    """Independent runs, (num_runs, ...), and the exact posterior."""

    log_ratio: np.ndarray
    moments: np.ndarray
    misfit: np.ndarray
    truth: exact.LinearGaussianPosterior


def _replicate(case, prior, num_runs=NUM_RUNS, **settings) -> Runs:
    """log Z_hat - log Z, and mean and second moments of x and its mode weights."""
    proposal, test = CASES[case]
    matrix = MASK if proposal is not None and proposal.masks_only else DENSE
    noise = settings.pop("noise", test.noise) * NOISE
    if proposal is None:
        proposal = conditional_sampler(case, prior, matrix, noise)
    model = reverse_model(prior, matrix, None if case in EXACT else noise, test.num_steps)
    proposals.check_fits(proposal, model)
    num_particles = settings.pop("num_particles", test.num_particles)

    def run(key):
        prepared = proposal.prepare(jax.random.fold_in(key, 1), model)
        steered = SteeredDiffusion(proposal, model, prepared)
        result = particle_filter(key, steered, num_particles, steered.num_steps, **settings)
        x = result.particles.x
        products = jax.vmap(lambda x: jnp.outer(x, x)[jnp.triu_indices(3)])(x)
        modes = jax.vmap(prior.component_probabilities)(x)
        moments = jnp.exp(result.log_weights) @ jnp.concatenate([x, products, modes], 1)
        return result.log_evidence, moments, jnp.max(jnp.abs(Y[None] - x @ matrix.T))

    keys = jax.random.split(jax.random.key(3), num_runs)
    log_evidence, moments, misfit = jax.jit(jax.vmap(run))(keys)
    truth = exact.linear_gaussian_posterior(prior, matrix, Y, noise)
    log_ratio = np.asarray(log_evidence - truth.log_evidence)
    return Runs(log_ratio, np.asarray(moments), np.asarray(misfit), truth)


def _exact_moments(truth) -> np.ndarray:
    mean, covariance = np.asarray(truth.mean), np.asarray(truth.covariance_matrix())
    products = (covariance + np.outer(mean, mean))[np.triu_indices(3)]
    return np.concatenate([mean, products, np.exp(truth.log_weights)])


def _check_unbiased(log_ratio):
    ratio = np.exp(log_ratio)
    standard_error = ratio.std() / NUM_RUNS**0.5
    assert standard_error < 0.2
    # 1e-3 allows for float32 where the estimate has no Monte-Carlo error at all.
    assert abs(ratio.mean() - 1.0) < 3 * standard_error + 1e-3


@pytest.mark.parametrize("prior", [pytest.param("gaussian", marks=pytest.mark.slow), "mixture"])
@pytest.mark.parametrize(
    "case",
    [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_evidence_and_moments(case, prior):
    log_ratio, moments, misfit, truth = _replicate(case, PRIORS[prior])
    _check_unbiased(log_ratio)
    if case in EXACT:
        assert misfit.max() < 1e-4
    weights = np.exp(log_ratio) / np.exp(log_ratio).sum()
    pooled = weights @ moments
    # Standard error of a self-normalised estimate, from the runs' weights and moments.
    error = np.sqrt((weights**2) @ (moments - pooled) ** 2)
    assert np.all(np.abs(pooled - _exact_moments(truth)) < 4 * error + 0.01)


@pytest.mark.parametrize("case", [case for case in CASES if case.endswith("one unseen")])
def test_what_is_hardly_observed_is_not_held_to_a_draw_of_its_noise(case):
    """Log Z_hat varies by 0.1 over the runs; held to a draw, by 680."""
    assert _replicate(case, PRIORS["mixture"]).log_ratio.std() < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["systematic", "stratified", "multinomial", "residual"])
@pytest.mark.parametrize("case", ["Bootstrap", "Twisted", "MomentMatched"])
@pytest.mark.parametrize("prior", PRIORS)
def test_evidence_for_every_resampler(prior, case, name, threshold):
    scheme = resampling.get(name)
    runs = _replicate(case, PRIORS[prior], resampling=scheme, ess_threshold=threshold)
    _check_unbiased(runs.log_ratio)


def _squared_errors(runs: Runs) -> dict[str, np.ndarray]:
    """Squared errors of what is estimated, (num_runs,)."""
    truth = _exact_moments(runs.truth)

    def covariance(moments):
        mean = moments[..., :3]
        products = mean[..., :, None] * mean[..., None, :]
        return moments[..., 3:9] - products[..., *np.triu_indices(3)]

    differences = {
        "mean": (runs.moments - truth)[:, :3],
        "covariance": covariance(runs.moments) - covariance(truth),
        "mode weights": (runs.moments - truth)[:, 9:],
        "log evidence": runs.log_ratio[:, None],
    }
    return {name: np.sum(d**2, axis=-1) for name, d in differences.items()}


def _slope(sizes, squared) -> tuple[float, float]:
    """Of the log root mean squared error against log N, and its bootstrap's standard error."""
    draws = np.random.default_rng(0).integers(squared.shape[1], size=(500, squared.shape[1]))
    means = np.concatenate([squared.mean(1)[:, None], squared[:, draws].mean(-1)], 1)
    slopes = np.polyfit(np.log(sizes), 0.5 * np.log(means), 1)[0]
    return slopes[0], slopes[1:].std()


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("case", REGISTERED)
def test_error_falls_as_one_over_root_n(case, prior):
    """Slope of log error against log N within [-0.65, -0.35], for all that is estimated.

    Give or take two standard errors, which tell how heavy a tail is, and must be small.
    """
    settings = CASES[case][1]
    sizes = [settings.slope_particles * factor for factor in (1, 4, 16)]
    errors = []
    for size in sizes:
        options = {"num_particles": size, "noise": settings.slope_noise}
        errors.append(_squared_errors(_replicate(case, PRIORS[prior], 128, **options)))
    for name in errors[0]:
        squared = np.stack([error[name] for error in errors])
        if squared[0].mean() > 1e-6:  # less is rounding: there is no Monte-Carlo error to fall
            slope, standard_error = _slope(sizes, squared)
            assert standard_error < 0.12, (name, slope, standard_error)
            assert abs(slope + 0.5) < 0.15 + 2 * standard_error, (name, slope, standard_error)


def test_moment_matched_is_exact_for_gaussians():
    """Exact kernel, Gaussian prior: after x_T is drawn, no weight changes (but for rounding)."""
    model = reverse_model(GAUSSIAN, DENSE, NOISE, 8)
    proposal = proposals.MomentMatched()
    steered = SteeredDiffusion(proposal, model, proposal.prepare(jax.random.key(0), model))
    result = particle_filter(jax.random.key(0), steered, 64, 9, ess_threshold=0.0)
    np.testing.assert_allclose(result.log_evidence_increments[2:], 0.0, atol=1e-3)
    np.testing.assert_allclose(result.ess[1:], result.ess[1], rtol=1e-3)


@pytest.mark.parametrize("ratio", [0.5, 0.98])
def test_ddrm_where_the_noise_is_that_of_a_level(ratio):
    """The published variance sigma^2 - noise^2 vanishes there: Z_hat / Z had mean 0.5 at 0.98."""
    prior, matrix, y = priors.Gaussian(jnp.zeros(1), 1.0), jnp.ones((1, 1)), jnp.array([0.7])
    levels = reverse_model(prior, matrix, jnp.ones(1), 5, y).levels
    noise = ratio * (levels.sigma / levels.alpha)[3][None]
    model = reverse_model(prior, matrix, noise, 5, y)
    proposal = proposals.DDRM()
    steered = SteeredDiffusion(proposal, model, proposal.prepare(jax.random.key(1), model))
    run = jax.jit(jax.vmap(lambda key: particle_filter(key, steered, 256, 6).log_evidence))
    truth = exact.linear_gaussian_posterior(prior, matrix, y, noise)
    _check_unbiased(run(jax.random.split(jax.random.key(2), NUM_RUNS)) - truth.log_evidence)


@pytest.mark.parametrize("proposal", [proposals.SMCDiff(), proposals.FPS()], ids=["SMCDiff", "FPS"])
def test_path_keeps_its_digits_far_from_the_origin(proposal):
    """A mean 1e5 of the noise away: what x rounds off is a hundredth of the noise a step."""
    mean, noise = jnp.array([1000.0, -1000.0, 500.0]), jnp.array([0.01, 0.01])
    prior = priors.Gaussian(mean, 1.0)
    matrix = jnp.eye(3)[:2]
    y = mean[:2] + jnp.array([0.5, -1.0])
    model = reverse_model(prior, matrix, noise, 50, y)
    steered = SteeredDiffusion(proposal, model, proposal.prepare(jax.random.key(1), model))
    result = particle_filter(jax.random.key(0), steered, 2000, steered.num_steps)
    truth = exact.linear_gaussian_posterior(prior, matrix, y, noise)
    assert abs(float(result.log_evidence - truth.log_evidence)) < 0.5
    x = np.asarray(result.particles.x, np.float64)
    error = np.exp(np.asarray(result.log_weights, np.float64)) @ (x - np.asarray(mean))
    # Data in steps of 6e-5 at 1000, over 50 levels: up to 0.1 of the noise.
    np.testing.assert_allclose(error[:2], [0.5, -1.0], atol=2e-3)


@pytest.mark.parametrize("name", ["SMCDiff", "Replacement"])
def test_a_sum_of_entries_is_no_mask(name):
    """However large y is."""
    prior = priors.Gaussian(jnp.zeros(2), 1e6)
    model = reverse_model(prior, jnp.array([[1.0, 0.5]]), jnp.array([0.1]), 8, jnp.array([1000.0]))
    with pytest.raises(InputError, match="needs an observation of single entries"):
        proposals.check_fits(getattr(proposals, name)(), model)
