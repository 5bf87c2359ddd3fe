"""Training on captions: resumes to the same bits, hides captions whole, refuses bad input."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from smcdiff import InputError, load_prior, load_text_encoder, shapes
from smcdiff.store._captions import CaptionReader
from smcdiff.text import EncodedCaptions
from smcdiff.training import TextTrainConfig, TrainConfig, train, train_text
from smcdiff.training import text as module
from smcdiff.training._captioned import CaptionedFiles, DrawnShapes, averaged, read_captions
from smcdiff.training._noise import Noise
from smcdiff.training._statistics import Statistics
from tests.text.folders import REFERENCES, copied, edit_weights
from tests.training.pictures import columns

BERT = str(REFERENCES / "bert")
CONFIG = TextTrainConfig(
    steps=4, batch_size=4, channels=(16,), patch=2, checkpoint_every=2, sample_every=4,
    encoder=BERT, text_channels=8, heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return columns(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return train_text(data, tmp_path_factory.mktemp("priors") / "columns", CONFIG)


@pytest.fixture
def undrawn(monkeypatch):
    """Without the picture of draws, which is most of the time."""
    monkeypatch.setattr(module, "_draw_samples", lambda *_: None)


def weights(folder):
    """Of the network alone."""
    arrays = load_file(folder / "model.safetensors")
    return {name: a for name, a in arrays.items() if not name.startswith("reader.")}


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_folder_is_complete(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "card.md", "samples.png", "captions.safetensors",
    }  # fmt: skip
    card = (trained / "card.md").read_text()
    assert "smcdiff train text" in card and "--text-channels 8" in card and "Given it." in card
    entries = json.loads((trained / "config.json").read_text())
    identity = load_text_encoder(BERT).identity
    assert entries["text"]["encoder"] == identity.entries() and identity.weights in card
    assert entries["text"]["grammar"] is None
    assert load_prior(trained).event_shape == (4, 4, 3)


@pytest.mark.slow
def test_resumed_run_ends_with_the_same_weights(data, trained, tmp_path, killed, undrawn):
    killed(train_text, data, tmp_path / "prior", CONFIG)
    names = {path.name for path in (tmp_path / "prior").iterdir()}
    assert names == {"checkpoint.safetensors", "captions.safetensors"}
    with pytest.raises(InputError, match=r"\(caption_dropout was 0.1, is 0.2\); use the same"):
        train_text(data, tmp_path / "prior", dataclasses.replace(CONFIG, caption_dropout=0.2))
    assert same(weights(train_text(data, tmp_path / "prior", CONFIG)), weights(trained))


@pytest.mark.slow
def test_what_is_always_hidden_has_no_influence(data, trained, tmp_path, undrawn):
    """Bit for bit: with a dropout of 1 the same weights come of other vectors of the captions."""
    pictures = CaptionedFiles(data, CONFIG)
    encoded = EncodedCaptions.load(trained / "captions.safetensors")
    pooled = np.random.default_rng(0).normal(size=encoded.pooled.shape).astype(np.float32)
    other = dataclasses.replace(encoded, states=encoded.states[::-1].copy(), pooled=pooled)
    noise = Noise.of(Statistics.of("", pictures.some(2000)))

    def learned(encoded, share):
        folder, config = tmp_path / str(share), dataclasses.replace(CONFIG, caption_dropout=share)
        folder.mkdir(exist_ok=True)
        reader = CaptionReader.of(encoded, pictures.trained_captions(), BERT, None)
        training = module.CaptionedTraining(pictures, encoded, reader)
        state = module._learn(training, folder, config, noise, False).denoiser.state
        (folder / "checkpoint.safetensors").unlink()
        return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]

    def equal(first, second):
        return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))

    assert equal(learned(encoded, 1.0), learned(other, 1.0))
    seen = jax.tree.leaves(load_prior(trained).denoiser.state)
    assert not equal(learned(other, CONFIG.caption_dropout), seen)


@pytest.mark.slow
def test_captions_are_encoded_once_and_by_one_encoder(data, trained, tmp_path, undrawn):
    """Without the encoder the file suffices; that of another encoder is refused."""
    file = trained / "captions.safetensors"
    config = dataclasses.replace(CONFIG, captions=str(file))
    before = file.stat().st_mtime_ns
    folder = train_text(data, tmp_path / "no-encoder", dataclasses.replace(config, encoder="gone"))
    assert file.stat().st_mtime_ns == before and not (folder / "captions.safetensors").exists()

    def change(tensors):
        name = min(tensors)
        tensors[name] = tensors[name] + 1

    another = copied("bert", tmp_path)
    edit_weights(another, change)
    with pytest.raises(InputError, match="encoded captions: made with the text encoder 'bert'"):
        train_text(data, tmp_path / "prior", dataclasses.replace(config, encoder=str(another)))
    (tmp_path / "more").mkdir()
    np.savez(tmp_path / "more" / "a.npz", images=np.load(data / "pictures.npz")["images"])
    captions = json.loads((data / "captions.json").read_text())
    (tmp_path / "more" / "captions.json").write_text(json.dumps([*captions[:-1], "a house"]))
    with pytest.raises(InputError, match="'a house' is not among the 12 encoded ones"):
        train_text(tmp_path / "more", tmp_path / "prior", config)
    assert not (tmp_path / "prior").exists()


@pytest.mark.slow
def test_a_prior_is_trained_further(data, trained, tmp_path, undrawn):
    """In the units of its start, whose weights it begins with."""
    config = dataclasses.replace(CONFIG, steps=1, init=str(trained), learning_rate=1e-7, ema=0.0)
    further = train_text(data, tmp_path / "further", config)
    first, second = load_prior(trained).denoiser, load_prior(further).denoiser
    assert same(first.reader.arrays(), second.reader.arrays())
    closest = weights(trained)
    assert all(np.allclose(a, closest[n], atol=1e-6) for n, a in weights(further).items())
    assert (further / "card.md").read_text().count("    smcdiff train text") == 2
    plain = train(data / "pictures.npz", tmp_path / "plain", dataclasses.replace(PLAIN, steps=1))
    with pytest.raises(InputError, match="no prior of captions"):
        train_text(data, tmp_path / "none", dataclasses.replace(config, init=str(plain)))


PLAIN = dataclasses.replace(TrainConfig(), batch_size=4, channels=(16,), patch=2, sample_every=4)


def test_pictures_of_a_held_out_caption_are_all_held_out(data):
    pictures = CaptionedFiles(data, CONFIG)
    out, used = ({pictures.captions[i] for i in part} for part in (pictures.out, pictures.used))
    assert out and used and not out & used
    assert set(pictures.held_out(99)[1]) == out and used == set(pictures.trained_captions())
    images, captions = pictures.batch(7, CONFIG)
    assert images.shape == (4, 4, 4, 3) and set(captions) <= used
    assert captions == CaptionedFiles(data / "pictures.npz", CONFIG).batch(7, CONFIG)[1]


def test_shapes_are_a_function_of_the_seed_and_the_step():
    drawn = DrawnShapes(16)
    config = dataclasses.replace(CONFIG, batch_size=8)
    images, captions = drawn.batch(3, config)
    again, other = drawn.batch(3, config), drawn.batch(4, config)
    assert images.shape == (8, 16, 16, 3) and np.array_equal(images, again[0])
    assert captions == again[1] and captions != other[1]
    assert {shapes.split(caption) for caption in captions} == {shapes.Split.TRAIN}
    held_out = drawn.held_out(8)[1]
    assert {shapes.split(caption) for caption in held_out} == {shapes.Split.HELD_OUT}


def test_larger_pictures_are_averaged(data):
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    small = averaged(data, images, 2)
    assert small.shape == (2, 2, 2, 3) and small.dtype == np.uint8
    assert small[1, 0, 1, 2] == round(images[1, :2, 2:, 2].mean())
    assert averaged(data, images, None) is images
    for size in (3, 8):
        with pytest.raises(InputError, match=f"not whole blocks of {size} x {size}"):
            averaged(data, images, size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "holds no list"),
        ('["a"]', "holds 1 entries; it must be a list with one for each of 2"),
        ("[1", "cannot be read"),
        ('["a", 3]', "an entry has no text at 'name'"),
        ('[{"name": "a"}, {"tag": "b"}]', r"no text at 'name' \(\['tag'\]\)"),
        ('["a", " "]', "no text"),
        ('["a", "a"]', "all captions are the same"),
    ],
)
def test_captions_that_cannot_be_used(tmp_path, content, message):
    file = tmp_path / "captions.json"
    with pytest.raises(InputError, match="no such file"):
        read_captions(file, "name", 2)
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_captions(file, "name", 2)


def test_captions_of_objects(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text('[{"name": "a cat", "tags": []}, "a dog"]')
    assert read_captions(file, "name", 2) == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caption_dropout": 1.5}, "caption_dropout is 1.5"),
        ({"labels": True}, "labels is not an option of a prior of captions"),
        ({"heads": 3}, "8 channels do not divide into 3 heads"),
        ({"blocks": (1, 2)}, r"blocks are \(1, 2\); give a number for each of the 1"),
        ({"size": 0}, "size is 0"),
        ({"channels": (16, 32), "efficient": True}, "do not divide by 8"),
        ({"batch_size": 25}, "too few"),
    ],
)
def test_options_that_cannot_be_used(data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train_text(data, tmp_path / "prior", dataclasses.replace(CONFIG, **options))
    assert not (tmp_path / "prior").exists()
