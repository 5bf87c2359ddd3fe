"""Training on captions: resumes to the same bits, hides captions whole, refuses bad input."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from smcdiff import load_prior, load_text_encoder, shapes
from smcdiff.text import EncodedCaptions
from smcdiff.training import TextTrainConfig, train_text
from tests.text.folders import REFERENCES

BERT = str(REFERENCES / "bert")
CONFIG = TextTrainConfig(
    steps=4, batch_size=4, channels=(16,), patch=4, size=16, checkpoint_every=2, sample_every=4,
    encoder=BERT, text_channels=8, heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """The whole grammar, encoded once by a small random BERT."""
    captions = EncodedCaptions.encode(
        load_text_encoder(BERT), shapes.captions(), progress_bar=False, batch_size=512
    )
    return str(captions.save(tmp_path_factory.mktemp("captions") / "shapes.safetensors"))


@pytest.fixture(scope="module")
def config(encoded):
    return dataclasses.replace(CONFIG, captions=encoded)


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("priors") / "shapes"
    return train_text("shapes", folder, config, progress_bar=False)


def test_folder_is_complete(trained, config):
    names = {path.name for path in trained.iterdir()}
    assert names == {"config.json", "model.safetensors", "card.md", "samples.png"}
    card = (trained / "card.md").read_text()
    assert "smcdiff train text shapes" in card and "--patch 4" in card and "Given it." in card
    entries = json.loads((trained / "config.json").read_text())
    identity = load_text_encoder(BERT).identity
    assert entries["text"]["encoder"] == identity.entries() and identity.weights in card
    assert entries["text"]["grammar"] == "shapes"
    assert load_prior(trained).event_shape == (16, 16, 3)


def test_resumed_run_ends_with_the_same_weights(trained, config, tmp_path, killed):
    killed(train_text, "shapes", tmp_path / "prior", config)
    train_text("shapes", tmp_path / "prior", config, progress_bar=False)
    resumed = load_file(tmp_path / "prior" / "model.safetensors")
    whole = load_file(trained / "model.safetensors")
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)
