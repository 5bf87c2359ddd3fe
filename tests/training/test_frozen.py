"""Towers on frozen features: computed once, of random weights here; refusals."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from smcdiff import InputError, load_clip
from smcdiff.base._pixels import to_unit_range
from smcdiff.store.image_features import image_features
from smcdiff.training import ClipTrainConfig, train_clip
from smcdiff.training._captioned import CaptionedFiles, DrawnShapes
from smcdiff.training._frozen import FrozenPictures, computed
from tests.store.lite0 import random_weights
from tests.store.text_priors import BERT
from tests.training.pictures import columns

LITE0 = "efficientnet-lite0"
CONFIG = ClipTrainConfig(
    steps=4, batch_size=8, checkpoint_every=2, encoder=BERT, features=8, hidden=16,
    text_channels=8, heads=2, image_features=LITE0, dropout=0.2, held_out=0.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def features():
    """Of pictures enlarged to 16 pixels, for speed."""
    return dataclasses.replace(image_features(random_weights(), "0" * 64), size=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return columns(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def loaded(monkeypatch, features):
    """The random features take the place of the package's."""
    for module in ("smcdiff.training.clip", "smcdiff.store.clip"):
        monkeypatch.setattr(f"{module}.load_image_features", lambda: features)


def test_features_of_files_are_computed_once(data, features, tmp_path, monkeypatch):
    """In the units of those that are learned from; and a file of others is refused."""
    pictures = CaptionedFiles(data, CONFIG)
    file = tmp_path / "features.safetensors"
    values = computed(pictures.images, features, file, False)
    expected = features(jnp.asarray(to_unit_range(pictures.images)))
    np.testing.assert_allclose(values, expected, atol=1e-4)
    monkeypatch.setattr("smcdiff.store.image_features._features", None)  # not called again
    frozen = FrozenPictures.of(pictures, features, file, False)
    seen, captions = frozen.batch(3, CONFIG)
    assert np.array_equal(frozen.values, values)
    chosen = pictures.chosen(3, CONFIG)
    assert list(captions) == [pictures.captions[i] for i in chosen]
    np.testing.assert_allclose(seen, frozen.reader.standard(jnp.asarray(values[chosen])), atol=1e-6)
    units = np.asarray(frozen.reader.standard(jnp.asarray(values[pictures.used])))
    np.testing.assert_allclose(units.mean(axis=0), np.zeros(units.shape[1]), atol=1e-2)
    with pytest.raises(InputError, match=r"other pictures or features \(pictures differ\)"):
        computed(pictures.images[1:], features, file, False)
    with pytest.raises(InputError, match=r"\(weights differ\); delete it"):
        computed(pictures.images, dataclasses.replace(features, weights="1"), file, False)
    file.write_bytes(b"0")
    with pytest.raises(InputError, match="no file of image features"):
        computed(pictures.images, features, file, False)


def test_features_of_drawn_pictures_are_those_of_the_batch(features, monkeypatch):
    monkeypatch.setattr("smcdiff.training._frozen._SOME", 8)  # as a batch, so compiled once
    pictures = DrawnShapes(16)
    config = dataclasses.replace(CONFIG, held_out=0.05)
    frozen = FrozenPictures.of(pictures, features, None, False)
    (seen, captions), (clean, expected) = frozen.batch(2, config), pictures.batch(2, config)
    assert tuple(captions) == tuple(expected)
    np.testing.assert_allclose(seen, frozen.reader.seen(clean), atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("loaded")
def test_the_folder_holds_the_head_alone(data, tmp_path):
    """And says which features it stands on, and how many captions were held out."""
    file = tmp_path / "features.safetensors"
    config = dataclasses.replace(CONFIG, image_features_file=str(file))
    folder = train_clip(data, tmp_path / "clip", config, progress_bar=False)
    card = (folder / "card.md").read_text()
    assert f"frozen features {LITE0}" in card and "--held-out 0.2" in card and file.is_file()
    weights = load_file(folder / "model.safetensors")
    assert weights["image_encoder.linear_in.weight"].shape == (16, 1432)
    assert sum(array.nbytes for array in weights.values()) < 200_000
    clip = load_clip(folder)
    assert clip.image(jnp.zeros((4, 4, 3))).shape == (8,)


def test_more_captions_are_held_out_where_one_wants(data):
    """Those of less are among them."""
    few, many = (
        CaptionedFiles(data, dataclasses.replace(CONFIG, held_out=share)) for share in (0.2, 0.5)
    )
    assert set(few.out) < set(many.out) and not set(many.out) & set(many.used)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_conditional": True}, "were trained on clean pictures only; leave one of them out"),
        ({"image_features": "efficientnet"}, f"did you mean '{LITE0}'"),
        ({"channels": (16,)}, "channels is not an option of clip with --image-features"),
        ({"image_features": None, "image_features_file": "a"}, "without --image-features"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"held_out": 0.0}, "held_out is 0.0"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **options)


@pytest.mark.usefixtures("loaded")
def test_data_that_cannot_be_used(data, tmp_path):
    with pytest.raises(InputError, match="held_out is not an option of shapes"):
        train_clip("shapes", tmp_path / "clip", CONFIG)
    images = np.zeros((40, 4, 4, 2), np.uint8)
    images[0] = 1
    (tmp_path / "captions.json").write_text((data / "captions.json").read_text())
    np.save(tmp_path / "pictures.npy", images)
    with pytest.raises(InputError, match="pictures of 2 channels"):
        train_clip(tmp_path, tmp_path / "clip", CONFIG)
