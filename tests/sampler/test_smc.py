"""`SMC`: right answers end to end, one compilation, and clear errors."""

import inspect
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.stats import norm

from smcdiff import (
    SMC,
    DegeneracyWarning,
    InputError,
    exact,
    kernels,
    operators,
    priors,
    proposals,
    static,
)
from smcdiff.diffusion.schedules import Cosine, Karras, UniformLogSNR
from tests.proposals.models import isotropic
from tests.sampler.models import MATRIX, NOISE, PRIOR, Y, model, run, sampler


def test_posterior_against_the_exact_one():
    posterior = run(sampler(num_particles=1000, num_chains=4))
    truth = exact.linear_gaussian_posterior(PRIOR, MATRIX, Y, NOISE)
    # MomentMatched with exact kernels: the spread between chains is the standard error.
    spread = posterior.log_evidence.std(ddof=1) / 2
    assert abs(posterior.log_evidence.mean() - truth.log_evidence) < 4 * spread + 0.01
    draws = truth.sample(jax.random.key(1), (4000,))
    # 4000 particles against 4000 draws: standard errors of about sqrt(2 / 4000) of the spread.
    error = (posterior.mean()["x"] - draws.mean(0)) / draws.std(0)
    assert np.all(np.abs(error) < 5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(posterior.std()["x"], draws.std(0), rtol=0.08)


def test_standard_error_of_the_log_evidence():
    """128 runs side by side: their spread is known to 6 %, and that of their mean from it."""
    posterior = run(sampler(proposals.Twisted(), num_particles=256, num_steps=20, num_chains=128))
    errors, spread = posterior.log_evidence_se, posterior.log_evidence.std(ddof=1)
    assert 1 / 1.5 < errors.mean() / spread < 1.5
    truth = exact.linear_gaussian_posterior(PRIOR, MATRIX, Y, NOISE).log_evidence
    pooled_error = posterior.pooled_log_evidence_se
    assert pooled_error == pytest.approx(spread / 128**0.5, rel=0.1)
    assert abs(posterior.pooled_log_evidence - truth) < 4 * pooled_error


@pytest.mark.slow
def test_founders_along_a_path_do_not_tell_the_error():
    """The evidence of a chain that is held to a path of its own depends on that path."""
    learned, _ = isotropic(jnp.zeros(3), 1.0)
    along = run(sampler(proposals.FPS(), num_chains=2), prior=learned)
    assert np.all(np.isnan(along.log_evidence_se)) and np.all(np.isfinite(along.log_evidence))
    ideal = run(sampler(proposals.FPS(), num_chains=2))  # with the exact kernel of the mixture
    assert np.all(ideal.log_evidence_se < 0.5)


def test_shapes_and_attributes():
    posterior = run(sampler(num_chains=2, store_ancestors=True))
    assert posterior.samples["x"].shape == (2, 128, 3)
    assert posterior.log_weights.shape == (2, 128)
    assert posterior.ess.shape == (2, 11)
    assert posterior.ancestors.shape == (2, 11, 128)
    np.testing.assert_allclose(np.exp(posterior.log_weights).sum(1), 1.0, rtol=1e-5)
    assert "MomentMatched" in posterior.attrs["proposal"]
    assert "linear-Gaussian" in posterior.attrs["proposal_reason"]


def test_other_data_of_the_same_shapes_do_not_compile_again(compilations):
    smc, key = sampler(), jax.random.key(1)
    other = priors.GaussianMixture(jnp.array([0.5, 0.5]), PRIOR.means + 1.0, 0.7)
    operator, y = operators.Dense(2 * MATRIX), Y + 1.0
    run(smc)
    compilations.clear()
    posterior = smc.run(key, other, operator, 0.3, y=y)
    assert not compilations
    assert np.isfinite(posterior.log_evidence).all()


def test_batch_size_changes_nothing_but_rounding():
    """The same random numbers; matrix products of another size round differently."""
    whole = run(sampler(num_chains=2))
    pieces = run(sampler(num_chains=2, batch_size=64))
    np.testing.assert_allclose(whole.samples["x"], pieces.samples["x"], atol=1e-4)
    np.testing.assert_allclose(whole.log_evidence, pieces.log_evidence, atol=1e-4)


def test_progress_and_grid_change_nothing_and_something(capsys):
    quiet, loud = run(sampler()), run(sampler(progress_bar=True))
    np.testing.assert_allclose(quiet.samples["x"], loud.samples["x"], atol=1e-5)  # two programs
    assert "10/10" in capsys.readouterr().err
    assert not np.array_equal(run(sampler(grid=Karras())).samples["x"], quiet.samples["x"])


def test_unweighted_has_no_evidence():
    posterior = run(sampler(proposals.Twisted(), weighted=False))
    assert np.isnan(posterior.log_evidence).all()
    np.testing.assert_allclose(posterior.ess, 128, rtol=1e-5)
    assert "weights were off" in str(posterior.diagnose())


def test_a_value_that_the_model_reads_from_outside_may_change(compilations):
    """jit would keep the old noise; the fingerprint compiles again, and only then."""
    noise = [0.4]

    def closure(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(MATRIX @ x, noise[0]).to_event(1), obs=y)

    options = {"num_particles": 256, "num_steps": 10, "progress_bar": False}
    smc = SMC(closure, proposals.MomentMatched(), **options)
    for noise[0] in (0.4, 2.0):
        for other in (smc, SMC(closure, proposals.MomentMatched(), **options)):
            before = len(compilations)
            posterior = other.run(jax.random.key(0), y=Y)
            truth = exact.linear_gaussian_posterior(PRIOR, MATRIX, Y, noise[0])
            # The two differ by 1.3 nat; the filter's own error is some hundredths.
            assert abs(posterior.log_evidence[0] - truth.log_evidence) < 0.3
        assert len(compilations) == before  # the second of two equal runs


def test_a_jitted_function_that_is_bound_anew():
    """Its matrix is a constant inside a nested program: log evidence -3.97, then -7.65."""

    def closure(y=None):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(3), 1.0))
        numpyro.sample("y", dist.Normal(forward(x), 0.5).to_event(1), obs=y)

    smc = SMC(closure, num_particles=256, num_steps=20, progress_bar=False)
    y = jnp.array([1.0, -1.0, 0.5])
    for gain in (1.0, 5.0):
        matrix = gain * jnp.eye(3)
        forward = jax.jit(partial(jnp.matmul, matrix))
        truth = exact.linear_gaussian_posterior(priors.Gaussian(jnp.zeros(3), 1.0), matrix, y, 0.5)
        found = smc.run(jax.random.key(0), y=y).log_evidence[0]
        # MomentMatched is exact here but for what the first weighing leaves: some hundredths.
        assert abs(found - truth.log_evidence) < 0.3


def test_threads_side_by_side():
    """In their first call, which traces: NumPyro's handlers are one stack for all threads."""
    smc, found = sampler(num_steps=7), {}

    def work(index):
        found[index] = run(smc)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = run(smc)
    for posterior in found.values():
        assert posterior.attrs["proposal"] == alone.attrs["proposal"]
        np.testing.assert_array_equal(posterior.log_evidence, alone.log_evidence)
    assert len(found) == 2


def test_whole_numbers_as_data_do_not_compile_again(compilations):
    smc = sampler()
    run(smc, y=jnp.array([1.0, 0.0]))
    whole = np.array([1, 0])
    compilations.clear()
    run(smc, y=whole)
    assert len(compilations) <= 1  # the transfer of whole numbers to the device


def test_more_chains_leave_the_first_ones_as_they_are():
    """Up to rounding: the programs differ."""
    one, two = run(sampler()), run(sampler(num_chains=2))
    np.testing.assert_allclose(two.samples["x"][:1], one.samples["x"], atol=1e-4)


def test_a_denoiser_outside_jax():
    """A callback has no derivative; what needs none can use it."""

    def denoiser(x, t):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: 0.1 * np.asarray(x), shape, x, vmap_method="expand_dims")

    prior = priors.DiffusionPrior(denoiser, Cosine(), (3,))
    with pytest.raises(InputError, match=r"Twisted: it fails .*no derivative.*Bootstrap\(\)"):
        run(sampler(proposals.Twisted()), prior=prior)
    posterior = run(sampler(proposals.Bootstrap(), num_particles=16, num_steps=3), prior=prior)
    assert np.isfinite(posterior.samples["x"]).all()


def test_an_image_shaped_analytic_prior():
    mean = jnp.arange(6.0).reshape(2, 3) / 6
    prior = priors.Gaussian(mean, 0.5)

    def image(y=None):
        x = numpyro.sample("image", prior)
        numpyro.sample("y", dist.Normal(x[0], 0.3).to_event(1), obs=y)

    y = jnp.array([0.3, 0.0, 1.0])
    smc = SMC(image, num_particles=500, num_steps=8, progress_bar=False)
    posterior = smc.run(jax.random.key(0), y=y)
    assert posterior.samples["image"].shape == (1, 500, 2, 3)
    truth = exact.linear_gaussian_posterior(prior, lambda x: x[0], y, 0.3)
    # 500 particles, exact but for their number: 5 standard errors.
    error = (posterior.mean()["image"] - truth.mean) / jnp.sqrt(truth.variance / 500)
    assert np.all(np.abs(error) < 5)


def test_a_degenerate_run_says_so():
    """It warns at the line that called it."""
    smc = sampler(proposals.Bootstrap(), num_particles=64, num_chains=3)
    call = inspect.unwrap(SMC.run)  # the checker's own frames would lie between
    with pytest.warns(DegeneracyWarning, match="effective sample size fell to") as caught:
        call(smc, jax.random.key(0), PRIOR, operators.Dense(MATRIX), 0.001, y=Y)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["print_summary", "get_samples", "summary"])
def test_what_users_of_numpyro_look_for(name):
    with pytest.raises(AttributeError, match=rf"SMC has no {name}: .*posterior.{name}\(\)"):
        getattr(sampler(), name)
    assert callable(getattr(run(sampler()), name))


def test_deterministic_kernel_has_no_weights():
    smc = sampler(proposals.Bootstrap(), kernel=kernels.DDIM(eta=0.0))
    with pytest.raises(InputError, match="eta = 0"):
        run(smc)
    smc = sampler(proposals.Bootstrap(), kernel=kernels.DDIM(eta=0.0), weighted=False)
    assert np.isfinite(run(smc).samples["x"]).all()


def test_observation_far_outside_the_prior():
    with pytest.raises(InputError, match="site 'y'.*far outside"):
        run(sampler(), y=Y + 1e5)


def test_a_scale_that_vanishes_at_zero():
    """NumPyro's own validation, at an x that is never sampled, would come after the run."""

    def scale(y=None):
        x = numpyro.sample("x", priors.Gaussian(jnp.ones(2), 0.1))
        numpyro.sample("y", dist.Normal(0.0, jnp.abs(x)).to_event(1), obs=y)

    smc = SMC(scale, num_particles=16, num_steps=4, progress_bar=False)
    posterior = smc.run(jax.random.key(0), y=jnp.ones(2))
    np.testing.assert_array_equal(posterior.observed["y"], 1.0)


def test_a_model_that_holds_a_key():
    posterior = run(SMC(handlers.seed(model, jax.random.key(3)), num_particles=16, num_steps=4,
                        progress_bar=False))  # fmt: skip
    assert np.isfinite(posterior.log_evidence).all()


def test_a_prior_too_wide_for_single_precision():
    matrix = jax.random.normal(jax.random.key(0), (4, 3))
    wide = priors.Gaussian(jnp.zeros(3), 1e6)
    smc = sampler(proposals.MomentMatched())
    with pytest.raises(InputError, match="lose their digits in .*float32.*jax_enable_x64"):
        smc.run(jax.random.key(0), wide, operators.Dense(matrix), 0.3, y=300.0 * jnp.ones(4))


class Lopsided(proposals.Bootstrap):
    """A proposal whose methods return other shapes than their contracts say."""

    wrong: str = static(default="")

    def evaluate(self, model, prepared, x, t):
        found = super().evaluate(model, prepared, x, t)
        return found._replace(log_twist=x) if self.wrong == "evaluate" else found

    def propose(self, key, model, prepared, x, evaluation, t, s):
        draw = super().propose(key, model, prepared, x, evaluation, t, s)
        return draw._replace(x=draw.x[:2]) if self.wrong == "propose" else draw

    def start(self, key, model, prepared):
        draw = super().start(key, model, prepared)
        return draw.x if self.wrong == "start" else draw


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("evaluate", r"Lopsided.evaluate: log_twist has shape \(3,\) in place of \(\)"),
        ("propose", r"Lopsided.propose: x has shape \(2,\) in place of \(3,\)"),
        ("start", "Lopsided.start: returns no Draw"),
    ],
)
def test_what_a_proposal_of_a_users_own_returns(wrong, message):
    with pytest.raises(InputError, match=message):
        run(sampler(Lopsided(wrong=wrong)))


@pytest.mark.parametrize(
    ("kernel", "ratio"),
    [
        pytest.param(kernels.DDIM(1.0), 1.29, marks=pytest.mark.slow),
        (kernels.AnalyticDPM(), 1.0),
    ],
)
def test_a_learned_prior_is_that_of_its_steps(kernel, ratio):
    """Under DDPM's kernel it is too narrow, by what the variance along its chain says."""
    schedule = Cosine()
    log_snr = jnp.linspace(-10.0, 10.0, 200)
    prior = priors.DiffusionPrior(
        lambda x, t: schedule.level(t).alpha * x, schedule, (3,),
        denoising_error=priors.DenoisingError(log_snr, 1.0 / (1.0 + jnp.exp(log_snr))),
    )  # fmt: skip

    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:2], 0.5).to_event(1), obs=y)

    @jax.jit
    def variance_of_the_chain():
        levels = UniformLogSNR()(schedule, 20)

        def step(variance, pair):
            t, s = pair
            one = jnp.ones(1)
            law = kernel(prior, one, t.alpha * one, t, s)
            return law.mean[0] ** 2 * variance + law.eigenvalues[0, 0], None

        parts = (slice(-1), slice(1, None))
        pairs = tuple(jax.tree.map(lambda a, part=part: a[part], levels) for part in parts)
        return jax.lax.scan(step, jnp.ones(()), pairs)[0]

    y = np.array([0.4, -0.6])
    right, of_the_chain = (
        norm(0.0, np.sqrt(variance + 0.25)).logpdf(y).sum()
        for variance in (1.0, float(variance_of_the_chain()))
    )
    assert abs(np.exp(of_the_chain - right) - ratio) < 0.01
    smc = SMC(model, kernel=kernel, num_particles=300, num_steps=20, num_chains=8)
    found = smc.run(jax.random.key(1), jnp.asarray(y, jnp.float32)).log_evidence
    assert abs(found.mean() - of_the_chain) < 3 * found.std(ddof=1) / 8**0.5 + 1e-3
