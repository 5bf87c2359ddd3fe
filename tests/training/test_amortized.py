"""Amortisation: learns p(x_0 given y) from simulated pairs, corrects itself, refuses bad input."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, InputError, kernels, load_conditional, priors, proposals, schedules
from smcdiff.training import TrainConfig, train_amortized
from smcdiff.training._simulator import load_model

SHAPE = (4, 4, 1)
CONFIG = TrainConfig(
    steps=250, batch_size=64, channels=(16,), patch=1, learning_rate=4e-3, checkpoint_every=250
)


def _prior():
    """N(0.5, 0.3^2 I): x_0 given y is Gaussian, pixel by pixel."""

    def denoise(x, t):
        level = schedules.Cosine().level(t)
        gain = level.alpha * 0.09 / (0.09 * level.alpha**2 + level.sigma**2)
        return 0.5 + gain * (x - 0.5 * level.alpha)

    log_snr = jnp.linspace(-10.0, 10.0, 81)
    error = priors.DenoisingError(log_snr, 1.0 / (1.0 / 0.09 + jnp.exp(log_snr)))
    return priors.DiffusionPrior(denoise, schedules.Cosine(), SHAPE, denoising_error=error)


PRIOR = _prior()


def model(y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, 0.3).to_event(3), obs=y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "pixels"
    return train_amortized(model, folder, CONFIG, command="pytest")


@pytest.fixture(scope="module")
def network(folder):
    return load_conditional(folder)


@pytest.mark.slow
def test_learns_the_posterior(network):
    """Posterior of a pixel: mean 0.5 + (y - 0.5) / 2, standard deviation 0.3 / sqrt(2)."""
    y = jnp.linspace(0.0, 1.0, 16).reshape(SHAPE)
    smc = SMC(model, proposals.Amortized(network), num_particles=128, num_steps=20,
              weighted=False, progress_bar=False)  # fmt: skip
    draws = smc.run(jax.random.key(0), y=y).samples["x"][0]
    # 128 draws leave 0.02 of the mean; the rest is for a network trained for seconds.
    error = draws.mean(axis=0) - (0.5 + 0.5 * (y - 0.5))
    assert np.sqrt(np.mean(error**2)) < 0.07
    assert abs(draws.std(axis=0).mean() - 0.3 / 2**0.5) < 0.06


@pytest.mark.slow
def test_held_out_errors_are_near_the_least(folder):
    """Those of the posterior mean: 1 / (1 / 0.09 + 1 / 0.09 + snr)."""
    errors = json.loads((folder / "config.json").read_text())["denoising_error"]
    for log_snr in (-4, 0, 4):
        least = 1.0 / (2.0 / 0.09 + np.exp(log_snr))
        # A mean of 256 x 16 squares is known to 2 %; what is above is the network's.
        assert 0.93 * least < errors[str(log_snr)] < 1.25 * least
    assert f"| 0 | {errors['0']:.5f} |" in (folder / "card.md").read_text()


@pytest.mark.slow
def test_weights_can_be_switched_on(network):
    # For a Gaussian prior this kernel is exact, so that Z is that of the prior.
    smc = SMC(model, proposals.Amortized(network), kernel=kernels.AnalyticDPM(), num_particles=256,
              num_steps=20, num_chains=32, progress_bar=False)  # fmt: skip
    y = jnp.full(SHAPE, 0.8)
    posterior = smc.run(jax.random.key(0), y=y)
    # y ~ N(0.5, 0.18) a pixel.
    truth = dist.Normal(0.5, 0.18**0.5).log_prob(y).sum()
    ratio = np.exp(posterior.log_evidence - truth)
    assert abs(ratio.mean() - 1.0) < 3 * ratio.std(ddof=1) / 32**0.5 < 1.0


@pytest.mark.slow
def test_observation_of_another_size(network):
    def smaller(y=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(x[:2], 0.3).to_event(3), obs=y)

    smc = SMC(smaller, proposals.Amortized(network), num_particles=4, num_steps=4)
    with pytest.raises(InputError, match=r"has shape \(2, 4, 1\), but the network was trained"):
        smc.run(jax.random.key(0), y=jnp.zeros((2, 4, 1)))


@pytest.mark.slow
def test_observation_off_the_pixels_is_lifted(tmp_path):
    """Four sums of rows, through the dense layer; the model from a file, as on the command line."""
    source = tmp_path / "rows.py"
    source.write_text(
        "import numpyro, numpyro.distributions as dist\n"
        "from tests.training.test_amortized import PRIOR\n"
        "def model(y=None):\n"
        "    x = numpyro.sample('x', PRIOR)\n"
        "    numpyro.sample('y', dist.Normal(x.sum((1, 2)), 0.3).to_event(1), obs=y)\n"
    )
    config = TrainConfig(steps=4, batch_size=8, channels=(16,), patch=1)
    data = tmp_path / "images.npy"
    np.save(data, np.random.default_rng(0).integers(0, 255, (64, 4, 4), np.uint8))
    folder = train_amortized(load_model(f"{source}:model"), tmp_path / "out", config, data=data)
    prior = load_conditional(folder).given(jnp.zeros(4))
    assert prior.sample(jax.random.key(0), (2,)).shape == (2, *SHAPE)


def test_bad_input(tmp_path):
    def two(y=None, z=None):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(x, 0.3).to_event(3), obs=y)
        numpyro.sample("z", dist.Normal(x, 0.3).to_event(3), obs=z)

    with pytest.raises(InputError, match="one of each"):
        train_amortized(two, tmp_path / "out", CONFIG)
    with pytest.raises(InputError, match="callable without arguments"):
        train_amortized(lambda y: None, tmp_path / "out", CONFIG)
    with pytest.raises(InputError, match="FILE:FUNCTION"):
        load_model("nowhere.py")
    with pytest.raises(InputError, match="of kind 'prior', not 'conditional'"):
        load_conditional("models/mnist")
