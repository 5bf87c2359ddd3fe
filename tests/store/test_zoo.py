"""The zoo: what ships, and what happens to names and files that are wrong."""

import json
import shutil

import jax
import numpy as np
import pytest

from smcdiff import (
    InputError,
    list_priors,
    load_classifier,
    load_conditional,
    load_examples,
    load_prior,
)
from smcdiff.store.zoo import zoo_folder


@pytest.fixture
def copy(tmp_path):
    """A copy of the digits prior that may be damaged."""
    return shutil.copytree(zoo_folder() / "mnist", tmp_path / "mnist")


def edit(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_digits_prior_ships():
    infos = {info.name: info for info in list_priors()}
    assert infos["mnist"].event_shape == (28, 28, 1)
    assert "CC BY-SA" in infos["mnist"].licence
    size = sum(file.stat().st_size for file in infos["mnist"].path.iterdir())
    assert size < 8 * 2**20


def test_a_digit_can_be_asked_for():
    """Noise so strong that only the class tells: each class's mean differs from every other's."""
    prior = load_prior("mnist-classes")
    noise = np.random.default_rng(0).normal(size=(28, 28, 1)).astype(np.float32)
    means = np.stack([np.ravel(prior.given(digit).denoise(noise, 0.95)) for digit in range(10)])
    distances = np.linalg.norm(means[:, None] - means[None], axis=-1)
    assert np.min(distances[~np.eye(10, dtype=bool)]) > 1.0
    assert np.all(np.isfinite(prior.denoise(noise, 0.95)))  # and none at all


def test_examples_are_real_digits_in_the_priors_units():
    images, labels = load_examples("mnist")
    assert images.shape == (20, 28, 28, 1) and images.dtype == np.float32
    assert images.min() == -1.0 and images.max() == 1.0
    assert sorted(set(labels.tolist())) == list(range(10))


def test_denoiser_denoises_digits():
    """At log-SNR 0 the error of the mean image's guess is about 0.4 a pixel, of a digit model
    0.05; a network that has learned nothing lies above the first."""
    prior, (images, _) = load_prior("mnist"), load_examples("mnist")
    time = prior.schedule.time(0.0)
    noise = jax.random.normal(jax.random.key(0), images.shape)
    noisy = prior.schedule.alpha(time) * images + prior.schedule.sigma(time) * noise
    denoised = jax.jit(jax.vmap(prior.denoise, (0, None)))(noisy, time)
    assert np.mean((denoised - images) ** 2) < 0.1


def test_unknown_names():
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        load_prior("mnits")
    with pytest.raises(InputError, match="choose from mnist"):
        load_prior("galaxies")


def test_damaged_weights(copy):
    file = copy / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:5000])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_prior(copy)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="truncated or damaged"):
        load_prior(copy)
    file.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        load_prior(copy)


def test_damaged_configuration(copy):
    edit(copy, prediction="w")
    with pytest.raises(InputError, match=r"missing or wrong entry \(KeyError: 'w'\)"):
        load_prior(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_prior(copy)


@pytest.mark.parametrize(("kind", "load"), [("classifier", load_classifier),
                                            ("conditional", load_conditional)])  # fmt: skip
def test_damaged_configuration_of_other_kinds(tmp_path, kind, load):
    (tmp_path / "config.json").write_text(json.dumps({"kind": kind, "network": {}}))
    with pytest.raises(InputError, match=r"config\.json: missing or wrong entry"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        load(tmp_path)


def test_schedule_that_ends_too_early(copy):
    edit(copy, schedule={"name": "Cosine", "t_min": 0.01, "t_max": 0.5})
    with pytest.raises(InputError, match="raise the schedule's t_max"):
        load_prior(copy)


def test_prior_without_examples(copy):
    (copy / "examples.npz").unlink()
    with pytest.raises(InputError, match="without examples"):
        load_examples(copy)
