"""Training CLIP: it learns, resumes to the same bits, hides held-out captions; bad input."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from smcdiff import InputError, load_clip, load_prior, shapes
from smcdiff.base._pixels import to_unit_range
from smcdiff.store._captions import CaptionReader
from smcdiff.training import ClipTrainConfig, train_clip
from smcdiff.training._alternatives import Alternatives
from smcdiff.training._captioned import DrawnShapes
from smcdiff.training.clip import _Batches
from smcdiff.training.text import CaptionedTraining
from tests.store.text_priors import BERT, encoded
from tests.training.pictures import columns

CONFIG = ClipTrainConfig(
    steps=60, batch_size=8, channels=(16,), patch=1, checkpoint_every=30, encoder=BERT,
    learning_rate=1e-2, ema=0.9, features=8, hidden=16, text_channels=8, heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return columns(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return train_clip(data, tmp_path_factory.mktemp("models") / "columns", CONFIG)


@pytest.mark.slow
def test_pictures_find_their_captions(data, trained):
    """The place of the column is the colour in the caption, and the shape is anything."""
    clip = load_clip(trained)
    images = jnp.asarray(to_unit_range(np.load(data / "pictures.npz")["images"]))
    captions = json.loads((data / "captions.json").read_text())
    colours = [caption.rpartition(" ")[0] for caption in captions]
    every = sorted(set(captions))
    best = np.argmax(clip.score(images, every), axis=1)
    assert [every[index].rpartition(" ")[0] for index in best] == colours
    assert clip.scale < 100.0 and clip.schedule is None


@pytest.mark.slow
def test_folder_is_complete(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {"config.json", "model.safetensors", "card.md", "captions.safetensors"}
    card = (trained / "card.md").read_text()
    assert "smcdiff train clip" in card and "score their caption" in card
    weights = load_file(trained / "model.safetensors")
    kinds = {array.dtype for name, array in weights.items() if not name.startswith("reader.")}
    assert kinds == {np.dtype(np.float16)}
    with pytest.raises(InputError, match="of kind 'clip', not 'prior'"):
        load_prior(trained)


@pytest.mark.slow
def test_resumed_run_ends_with_the_same_weights(data, trained, tmp_path, killed):
    killed(train_clip, data, tmp_path / "clip", CONFIG)
    with pytest.raises(InputError, match=r"\(negatives was 8, is 3\); use the same"):
        train_clip(data, tmp_path / "clip", dataclasses.replace(CONFIG, negatives=3))
    resumed = train_clip(data, tmp_path / "clip", CONFIG)
    first, second = (load_file(folder / "model.safetensors") for folder in (resumed, trained))
    assert all(np.array_equal(first[name], second[name]) for name in second)


@pytest.mark.slow
def test_a_noise_conditional_tower_knows_the_level(data, tmp_path):
    config = dataclasses.replace(CONFIG, steps=2, noise_conditional=True)
    folder = train_clip(data, tmp_path / "clip", config)
    assert "| -8 |" in (folder / "card.md").read_text()
    clip = load_clip(folder)
    image = jnp.zeros((4, 4, 3))
    assert np.any(clip.image(image, 0.9) != clip.image(image, 0.1))
    log_prob = clip.given("a red circle", ["a green circle", "a blue circle", "a red circle"])
    assert log_prob.schedule == clip.schedule and log_prob.texts.shape[0] == 3
    assert float(log_prob(image, 0.5)) < 0.0


def test_wrong_captions_are_learned_from_and_differ_by_a_word():
    """No held-out caption is among them; where there are fewer than wanted, the rest is hidden."""
    pictures = DrawnShapes(16)
    reader = CaptionReader.of(encoded(), encoded().captions, BERT, "shapes")
    batches = _Batches(
        CaptionedTraining(pictures, encoded(), reader),
        dataclasses.replace(CONFIG, negatives=16),
    )
    captions = ("a red circle", "two red circles above a blue square")
    assert {shapes.split(caption) for caption in captions} == {shapes.Split.TRAIN}
    chosen, is_there = batches._negatives(captions, 3)
    assert is_there.shape == (2, 16) and len(chosen) == 32
    trained = set(pictures.trained_captions())
    for row, caption in enumerate(captions):
        mine = [chosen[16 * row + i] for i in np.flatnonzero(is_there[row])]
        assert set(mine) == set(shapes.one_word_changes(caption)) & trained
    assert not is_there[0].all()
    again, other = batches._negatives(captions, 3)[0], batches._negatives(captions, 4)[0]
    assert chosen == again and chosen != other


def test_temperature_is_that_of_the_probabilities():
    """Scores are three times the log odds of labels drawn by them: the temperature is three.

    It is found within 0.3: its standard error over 20,000 draws is 0.03 (from repetitions).
    """
    random = np.random.default_rng(0)
    log_odds = 2.0 * random.normal(size=(20_000, 4))
    picked = np.argmax(log_odds + random.gumbel(size=log_odds.shape), axis=1)
    rows = np.arange(len(picked))
    first = log_odds[rows, picked].copy()
    log_odds[rows, picked] = log_odds[:, 0]
    log_odds[:, 0] = first
    scores = Alternatives(3.0 * log_odds)
    assert scores.temperature() == pytest.approx(3.0, abs=0.1)
    assert scores.log_loss(3.0) < min(scores.log_loss(2.0), scores.log_loss(4.5))


def test_temperature_of_a_tower_without_mistakes():
    """100 pictures, gap 1 to one alternative: the log loss and that of the random one are

    log(1 + exp(-b)) + (log(1 + exp(-b)) + b / 2) / 100 at b = 1 / temperature, least where
    1.01 / (1 + exp(b)) = 1 / 200, so b = log(201).
    """
    scores = Alternatives(np.repeat([[1.0, 0.0, -np.inf]], 100, axis=0))
    assert scores.accuracy == 1.0
    assert scores.temperature() == pytest.approx(1.0 / np.log(201.0), rel=1e-3)
    assert Alternatives(np.zeros((5, 1))).temperature() == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": True}, "labels is not an option of clip"),
        ({"init": "mnist"}, "init is not an option of clip"),
        ({"log_snr_mean": 1.0}, "log_snr_mean is not an option of clip without --noise-cond"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"features": 0}, "features is 0"),
        ({"negatives": -1}, "negatives is -1"),
        ({"heads": 3}, "8 text channels do not divide into 3 heads"),
        ({"size": 0}, "size is 0"),
        ({"batch_size": 25}, "too few"),
    ],
)
def test_options_that_cannot_be_used(data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train_clip(data, tmp_path / "clip", dataclasses.replace(CONFIG, **options))
    assert not (tmp_path / "clip").exists()
