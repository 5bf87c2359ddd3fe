"""Settings of `SMC`: what is refused, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, InputError, kernels, proposals, twists
from tests.sampler.models import PRIOR, run, sampler


@pytest.mark.usefixtures("unchecked")
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
        ({"ess_threshold": True}, "ess_threshold is True"),
        ({"num_particles": True}, "num_particles is True; it must be a whole number"),
        ({"weighted": "no"}, "weighted is 'no'; it must be True or False"),
        ({"weighted": 1}, "weighted is 1; it must be True or False"),
        ({"store_ancestors": "yes"}, "store_ancestors is 'yes'"),
        ({"linear": "yes"}, "linear is 'yes'"),
        ({"proposal": proposals.Twisted}, r"pass an object of smcdiff, .*proposals.Twisted\(\)"),
        ({"kernel": kernels.DDIM}, r"pass an object of smcdiff, .*kernels.DDIM\(\)"),
        ({"grid": "karras"}, r"pass an object of smcdiff, .*schedules.Karras\(\)"),
        ({"resampling": lambda key, w, n: jnp.arange(3)}, "must return num_samples indices"),
        ({"resampling": lambda key, w: w}, "the function fails on"),
        ({"resampling": "sistematic"}, "systematic"),
        ({"proposal": "twisted"}, "proposals.Twisted"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        sampler(**options)


def test_threshold_from_the_noise_level(tmp_path):
    smc = sampler(
        proposals.Bootstrap(twist=twists.Likelihood(0.5)),
        ess_threshold=lambda log_snr: log_snr > 0.0,
    )
    posterior = run(smc)
    # A step resamples, or not, by the level that it leaves; the first weighing never does.
    expected = np.concatenate([[False], posterior.log_snr[:-1] > 0.0])
    np.testing.assert_array_equal(posterior.resampled[0], expected)
    assert 0 < expected.sum() < 10
    posterior.save(tmp_path / "posterior.nc")
    with pytest.raises(InputError, match="outside"):
        run(sampler(ess_threshold=lambda log_snr: log_snr))


@pytest.mark.usefixtures("unchecked")
def test_keys_that_are_none():
    with pytest.raises(InputError, match=r"the random key is 0; pass jax.random.key\(0\)"):
        sampler().run(0)
    with pytest.raises(InputError, match="the random key is None"):
        sampler().run_batch(None, {})
    with pytest.raises(InputError, match="the random key is Array"):
        sampler().run(jax.random.split(jax.random.key(0)))


@pytest.mark.usefixtures("unchecked")
def test_settings_of_numpy(tmp_path):
    smc = sampler(num_steps=np.int64(4), num_particles=np.int32(16), ess_threshold=np.float32(0.5))
    run(smc).save(tmp_path / "posterior.nc")


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad], ids=lambda f: f.__name__)
def test_runs_compile_by_themselves(transform):
    """Under jit or grad, and said before anything is sampled."""

    def inside(y):
        return run(sampler(), y=y).log_evidence

    with pytest.raises(InputError, match="SMC.run is called under jax.jit, vmap or grad"):
        transform(inside)(jnp.ones((3, 2)) if transform is jax.vmap else jnp.ones(2))
    with pytest.raises(InputError, match="SMC.run is called under"):
        jax.jit(lambda key: sampler().run(key))(jax.random.key(0))


def test_a_model_that_closes_over_what_is_differentiated():
    def log_evidence(scale):
        def model(y):
            x = numpyro.sample("x", PRIOR)
            numpyro.sample("y", dist.Normal(x[0], scale), obs=y)

        return SMC(model, num_particles=8, num_steps=4).run(jax.random.key(0), 0.5).log_evidence[0]

    with pytest.raises(InputError, match="SMC.run is called under jax.jit, vmap or grad"):
        jax.grad(log_evidence)(0.5)
