"""`SMC`: right answers end to end, one compilation, batches, and clear errors."""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from smcdiff import (
    SMC,
    InputError,
    SamplingError,
    exact,
    kernels,
    operators,
    priors,
    proposals,
)
from smcdiff.diffusion.schedules import Cosine, Karras
from smcdiff.sampler import compiled_run

PRIOR = priors.GaussianMixture(
    jnp.array([0.3, 0.7]), jnp.array([[-2.0, 0.0, 1.0], [3.0, 1.0, 0.0]]), 0.5
)
MATRIX = jnp.array([[1.0, 0.5, -0.3], [0.0, 1.0, 0.8]])
Y, NOISE = jnp.array([0.7, -0.6]), 0.4


def model(prior, operator, noise, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator(x), noise).to_event(), obs=y)


def sampler(proposal=None, **options):
    options = {"num_particles": 128, "num_steps": 10, "progress_bar": False, **options}
    return SMC(model, proposal, **options)


def run(smc, key=0, prior=PRIOR, noise=NOISE, y=Y):
    return smc.run(jax.random.key(key), prior, operators.Dense(MATRIX), noise, y=y)


@pytest.fixture
def compilations():
    """How many programs XLA has compiled since the test began."""
    durations = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield durations
    jax.monitoring.unregister_event_duration_listener(listen)


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


def test_batch_is_one_call_and_right(compilations):
    smc = sampler(num_particles=500)
    ys = jnp.stack([Y, Y + 1.0, Y - 2.0])
    operator = operators.Dense(MATRIX)
    posteriors = smc.run_batch(jax.random.key(0), {"y": ys}, PRIOR, operator, NOISE)
    for y, posterior in zip(ys, posteriors, strict=True):
        truth = exact.linear_gaussian_posterior(PRIOR, MATRIX, y, NOISE)
        # The standard deviation of log Z_hat is about 0.03 here.
        np.testing.assert_allclose(posterior.log_evidence, truth.log_evidence, atol=0.15)
    key, others = jax.random.key(1), ys + 0.1
    compilations.clear()
    smc.run_batch(key, {"y": others}, PRIOR, operator, NOISE)
    assert not compilations


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 0}, "num_particles is 0"),
        ({"num_steps": 1}, "num_steps is 1"),
        ({"num_chains": 0}, "num_chains is 0"),
        ({"num_particles": 1.5}, "num_particles is 1.5; it must be a whole number"),
        ({"num_steps": 10**20}, "at most 2147483647"),
        ({"batch_size": "all"}, "batch_size is 'all'"),
        ({"ess_threshold": 1.5}, "ess_threshold is 1.5"),
        ({"ess_threshold": None}, "ess_threshold is None"),
        ({"resampling": lambda key, w, n: jnp.arange(3)}, "must return num_samples indices"),
        ({"resampling": lambda key, w: w}, "the function fails on"),
        ({"resampling": "sistematic"}, "systematic"),
        ({"proposal": "twisted"}, "proposals.Twisted"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        sampler(**options)


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


def test_threshold_from_the_noise_level(tmp_path):
    smc = sampler(proposals.Bootstrap(temper=0.5), ess_threshold=lambda log_snr: log_snr > 0.0)
    posterior = run(smc)
    # A step resamples, or not, by the level that it leaves; the first weighing never does.
    expected = np.concatenate([[False], posterior.log_snr[:-1] > 0.0])
    np.testing.assert_array_equal(posterior.resampled[0], expected)
    assert 0 < expected.sum() < 10
    posterior.save(tmp_path / "posterior.nc")
    with pytest.raises(InputError, match="outside"):
        run(sampler(ess_threshold=lambda log_snr: log_snr))


def test_keys_that_are_none():
    with pytest.raises(InputError, match=r"the random key is 0; pass jax.random.key\(0\)"):
        sampler().run(0)
    with pytest.raises(InputError, match="the random key is None"):
        sampler().run_batch(None, {})
    with pytest.raises(InputError, match="the random key is Array"):
        sampler().run(jax.random.split(jax.random.key(0)))


def test_deterministic_kernel_has_no_weights():
    smc = sampler(proposals.Bootstrap(), kernel=kernels.DDIM(eta=0.0))
    with pytest.raises(InputError, match="eta = 0"):
        run(smc)
    smc = sampler(proposals.Bootstrap(), kernel=kernels.DDIM(eta=0.0), weighted=False)
    assert np.isfinite(run(smc).samples["x"]).all()


def test_denoiser_that_returns_nan_is_named():
    prior = priors.DiffusionPrior(lambda x, t: x + jnp.log(t - 0.5) * 0.0, Cosine(), (3,))
    with pytest.raises(SamplingError, match="site 'x': at step"):
        run(sampler(proposals.Bootstrap(temper=0.5)), prior=prior)


def test_observation_far_outside_the_prior():
    with pytest.raises(InputError, match="site 'y'.*far outside"):
        run(sampler(), y=Y + 1e5)


def test_batch_names_the_item():
    ys = jnp.stack([Y, Y + 1e5])
    with pytest.raises(InputError, match="run_batch, item 1: .*far outside"):
        sampler().run_batch(jax.random.key(0), {"y": ys}, PRIOR, operators.Dense(MATRIX), NOISE)


def test_batch_shares_what_its_items_share(monkeypatch):
    """The operator and the levels, so that they are decomposed and branched on once."""
    seen = []

    def spy(models):
        stacked, mapped = compiled_run.stack(models)
        leaves = zip(jax.tree.leaves(stacked), mapped, strict=True)
        seen.extend(leaf.shape for leaf, is_mapped in leaves if is_mapped)
        return stacked, mapped

    monkeypatch.setattr("smcdiff.sampler.smc.stack", spy)
    operator = operators.Dense(np.asarray(MATRIX))
    ys = np.stack([Y, Y + 1.0])
    sampler(num_steps=4).run_batch(jax.random.key(0), {"y": ys}, PRIOR, operator, 0.3)
    assert seen == [(2, 2)]  # y alone


def test_settings_of_numpy(tmp_path):
    smc = sampler(num_steps=np.int64(4), num_particles=np.int32(16), ess_threshold=np.float32(0.5))
    run(smc).save(tmp_path / "posterior.nc")


def test_batch_of_different_shapes():
    with pytest.raises(InputError, match="leading axes"):
        sampler().run_batch(jax.random.key(0), {"y": Y, "noise": jnp.ones(3)}, PRIOR, MATRIX)


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


def test_batches_that_are_none():
    with pytest.raises(InputError, match="the batch is a list"):
        sampler().run_batch(jax.random.key(0), [Y, Y], PRIOR, operators.Dense(MATRIX), NOISE)
