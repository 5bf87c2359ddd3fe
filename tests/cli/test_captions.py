"""``smcdiff captions``: lists them, or encodes them for training."""

import json
import os

import numpy as np
import pytest

from smcdiff import load_text_encoder, shapes
from smcdiff.text import EncodedCaptions
from tests.cli.inputs import text
from tests.text.folders import REFERENCES, copied, edit_weights

BERT = str(REFERENCES / "bert")


def captions(*entries):
    return text("captions.json", json.dumps(entries))


def test_a_line_for_each(smcdiff):
    code, out, _ = smcdiff("captions", "shapes")
    assert code == 0 and tuple(out.splitlines()) == shapes.captions()
    code, out, _ = smcdiff("captions", "shapes", "--part", "held-out")
    assert code == 0 and tuple(out.splitlines()) == shapes.captions(shapes.Split.HELD_OUT)
    captions({"name": "a dog"}, {"name": "a cat"}, {"name": "a dog"})
    code, out, _ = smcdiff("captions", "captions.json", "--caption-key", "name")
    assert code == 0 and out == "a dog\na cat\n"


def test_a_file_for_training(smcdiff, tmp_path):
    captions("a dog", "two red circles", "a dog")
    code, out, err = smcdiff("captions", "captions.json", "-o", "new/c.st", "--encoder", BERT)
    assert code == 0, err
    assert "Encoding: 2/2 captions" in err and "2 captions, encoded by" in out
    encoded = EncodedCaptions.load("new/c.st")
    assert encoded.captions == ("a dog", "two red circles")
    encoder = load_text_encoder(BERT)
    found = encoded.lookup(["two red circles"], encoder.identity)
    expected = encoder.encode(["two red circles"])
    np.testing.assert_allclose(found.pooled, expected.pooled, atol=1e-5)
    code, _, err = smcdiff("captions", "captions.json", "-o", "new/c.st", "--encoder", BERT)
    assert code == 2 and "new/c.st exists; nothing is overwritten" in err
    assert os.listdir("new") == ["c.st"]


def test_a_reader_that_has_seen_enough(smcdiff, monkeypatch, tmp_path):
    """``smcdiff captions shapes | head -1`` is no error."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        code, _, err = smcdiff("captions", "shapes")
    assert code == 0 and not err


REFUSED = {
    "no data": (["none.json"], "none.json: no such file"),
    "no list": (["object.json"], "object.json: holds no list of captions"),
    "no texts": (["keys.json"], "an entry has no text at 'caption' (['name'])"),
    "no JSON": (["damaged.json"], "damaged.json: cannot be read"),
    "a part of what": (["shapes", "--part", "held"], "--part is 'held'; did you mean 'held-out'"),
    "a part of a file": (["texts.json", "--part", "train"], "--part is of the captions of shapes"),
    "a part of a training": (["shapes", "--part", "train", "-o", "a"], "--part lists"),
    "an encoder for nothing": (["shapes", "--encoder", BERT], "--encoder goes with --output"),
    "no encoder": (
        ["texts.json", "-o", "a", "--encoder", "mini"],
        "no text encoder named 'mini'; did you mean 'minilm'",
    ),
    "too long": (
        ["long.json", "-o", "a/b", "--encoder", BERT],
        "tokens, and the encoder takes 48: shorten it",
    ),
    "taken": (["texts.json", "-o", "texts.json", "--encoder", BERT], "texts.json exists"),
    "in a file": (["texts.json", "-o", "texts.json/a", "--encoder", BERT], "cannot be written"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(refused, case):
    words, message = REFUSED[case]
    text("object.json", "{}")
    text("keys.json", '[{"name": "a"}]')
    text("damaged.json", "[")
    text("texts.json", '["a", "b"]')
    text("long.json", json.dumps(["a dog", "a dog " * 40]))
    refused(["captions", *words], message)


@pytest.mark.slow
def test_training_refuses_a_file_of_another_encoder(refused, tmp_path_factory):
    other = copied("bert", tmp_path_factory.mktemp("encoders"))

    def change(tensors):
        tensors[min(tensors)] += 1

    edit_weights(other, change)
    encoder = load_text_encoder(other)
    EncodedCaptions.encode(encoder, ["two red circles"], progress_bar=False).save("c.st")
    words = ["train", "text", "shapes", "--captions", "c.st", "--encoder", BERT, "-o", "out"]
    refused(words, "c.st, encoded captions: made with", "weights differ; take the encoder")
