"""What ships with the package, and what happens to names that are wrong."""

import itertools
import shutil

import jax
import numpy as np
import pytest

from smcdiff import InputError, list_priors, load_clip, load_examples, load_prior, shapes
from smcdiff.store.shipped import shipped_folder
from tests.text.test_packaged import needs_minilm


def test_the_digits_prior_ships():
    infos = {info.name: info for info in list_priors()}
    assert infos["mnist"].event_shape == (28, 28, 1)
    assert "CC BY-SA" in infos["mnist"].licence
    size = sum(file.stat().st_size for file in infos["mnist"].path.iterdir())
    assert size < 8 * 2**20


@pytest.mark.slow
def test_a_digit_can_be_asked_for():
    """Noise so strong that only the class tells: each class's mean differs from every other's."""
    prior = load_prior("mnist-classes")
    noise = jax.random.normal(jax.random.key(0), (28, 28, 1))
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


def test_towers_of_shapes_ship():
    clip = load_clip("shapes-clip")
    assert clip.event_shape == (32, 32, 3) and clip.schedule is None
    folder = shipped_folder() / "shapes-clip"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3 * 2**20
    assert "shapes-clip" not in [info.name for info in list_priors()]


@needs_minilm
def test_towers_tell_a_caption_from_those_of_one_changed_word():
    """experiments/clip: all of 1,000 held-out captions, so that chance fails none of 32."""
    clip = load_clip("shapes-clip")
    captions = shapes.random_captions(jax.random.key(0), 32, shapes.Split.HELD_OUT)
    images = shapes.render_batch(captions, jax.random.key(1), 32)
    changes = {caption: shapes.one_word_changes(caption) for caption in captions}
    every = list(dict.fromkeys([*captions, *itertools.chain(*changes.values())]))
    for caption, of_all in zip(captions, clip.score(images, every), strict=True):
        scores = dict(zip(every, of_all.tolist(), strict=True))
        assert scores[caption] > max(scores[other] for other in changes[caption]), caption


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        load_prior("mnits")
    with pytest.raises(InputError, match="choose from mnist"):
        load_prior("galaxies")
    with pytest.raises(InputError, match="no clip named 'shape-clip'; did you mean 'shapes-clip'"):
        load_clip("shape-clip")
    with pytest.raises(InputError, match="File name too long"):
        load_prior("a" * 300)
    with pytest.raises(InputError, match="no config.json"):
        load_prior(tmp_path)


def test_prior_without_examples(tmp_path):
    copy = shutil.copytree(shipped_folder() / "mnist", tmp_path / "mnist")
    (copy / "examples.npz").unlink()
    with pytest.raises(InputError, match="without examples"):
        load_examples(copy)
