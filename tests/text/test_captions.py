"""`EncodedCaptions`: what the file gives back, and whom it refuses."""

import dataclasses

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from smcdiff import InputError
from smcdiff.text import EncodedCaptions
from tests.text.folders import CAPTIONS, relative_error

TWICE = [*CAPTIONS, CAPTIONS[0]]


@pytest.fixture(scope="module")
def encoded(encoders):
    return EncodedCaptions.encode(encoders["bert"], TWICE, batch_size=2, progress_bar=False)


@pytest.fixture
def file(encoded, tmp_path):
    return encoded.save(tmp_path / "captions.safetensors")


def test_a_file_gives_what_the_encoder_gives(encoders, encoded, file):
    """States within float16's rounding, 2**-11 of each; pooled vectors in float32."""
    encoder = encoders["bert"]
    loaded = EncodedCaptions.load(file)
    assert loaded.encoder == encoder.identity and loaded.captions == tuple(CAPTIONS)
    assert loaded.states.dtype == np.float16 and len(loaded.states) == loaded.lengths.sum()
    order = [3, 1, 2, 1]
    wanted = [CAPTIONS[i] for i in order]
    found = loaded.lookup(wanted, encoder.identity, num_tokens=24)
    expected = encoder.encode(wanted, num_tokens=24)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.states, expected.states, rtol=2**-10, atol=1e-5)
    assert relative_error(found.pooled, expected.pooled) < 1e-5
    assert found.states.dtype == found.pooled.dtype == np.float32
    assert loaded.lookup(CAPTIONS[1:2], encoder.identity).mask.all()


def test_float32_on_request(encoders):
    encoder = encoders["t5_relu"]
    encoded = EncodedCaptions.encode(encoder, CAPTIONS, dtype=np.float32, progress_bar=False)
    found = encoded.lookup(CAPTIONS, encoder.identity)
    np.testing.assert_array_equal(found.states, encoder.encode(CAPTIONS).states)


def test_another_encoder_is_refused(encoders, encoded):
    other = encoders["t5_relu"].identity
    with pytest.raises(InputError, match="4 encoded captions: made with the text encoder 'bert'"):
        encoded.lookup(CAPTIONS[:1], other)
    pooled_otherwise = dataclasses.replace(encoders["bert"].identity, config="0" * 64)
    with pytest.raises(InputError, match=": config differ"):
        encoded.lookup(CAPTIONS[:1], pooled_otherwise)


def test_captions_that_are_not_there(encoders, encoded, unchecked):
    identity = encoders["bert"].identity
    with pytest.raises(InputError, match="caption 'a cat' is not among the 4 encoded ones"):
        encoded.lookup([CAPTIONS[0], "a cat"], identity)
    for captions, message in (([], "is empty"), (CAPTIONS[0], "in brackets")):
        with pytest.raises(InputError, match=message):
            encoded.lookup(captions, identity)
    with pytest.raises(InputError, match="has .* tokens, and num_tokens is 3"):
        encoded.lookup(CAPTIONS[:1], identity, num_tokens=3)


def test_states_beyond_float16(encoders):
    encoder = encoders["t5_relu"]
    name = "encoder.final_layer_norm.weight"
    loud = dataclasses.replace(
        encoder, weights={**encoder.weights, name: 1e6 * encoder.weights[name]}
    )
    with pytest.raises(InputError, match=r"give dtype=numpy\.float32"):
        EncodedCaptions.encode(loud, CAPTIONS, progress_bar=False)
    with pytest.raises(InputError, match=r"give numpy\.float16 or numpy\.float32"):
        EncodedCaptions.encode(encoder, CAPTIONS, dtype=np.int32)


def test_progress_and_errors_of_the_encoder(encoders, unchecked):
    seen = []
    EncodedCaptions.encode(
        encoders["bert"], TWICE, batch_size=3, progress_bar=lambda *step: seen.append(step)
    )
    assert seen == [(3, 4, {}), (4, 4, {})]
    for captions, message in (([], "is empty"), ([["two"]], "caption 0 is a list")):
        with pytest.raises(InputError, match=message):
            EncodedCaptions.encode(encoders["bert"], captions)


def drop_states(arrays, metadata):
    del arrays["states"]


def fewer_states(arrays, metadata):
    arrays["states"] = arrays["states"][1:]


def fewer_lengths(arrays, metadata):
    arrays["lengths"] = arrays["lengths"][1:]


def flat(arrays, metadata):
    arrays["pooled"] = arrays["pooled"].ravel()


def other_format(arrays, metadata):
    metadata["format"] = "pt"


def no_encoder(arrays, metadata):
    metadata["encoder"] = "{}"


@pytest.mark.parametrize(
    "damage", [drop_states, fewer_states, fewer_lengths, flat, other_format, no_encoder]
)
def test_files_that_do_not_hold_together(file, damage):
    with safe_open(file, framework="numpy") as tensors:
        metadata = tensors.metadata()
    arrays = load_file(file)
    damage(arrays, metadata)
    save_file(arrays, file, metadata)
    with pytest.raises(InputError, match=r"captions\.safetensors: holds no encoded captions"):
        EncodedCaptions.load(file)


def test_files_that_are_none(file, tmp_path):
    with pytest.raises(InputError, match="no such file; give a file of encoded captions"):
        EncodedCaptions.load(tmp_path / "nothing")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="holds no encoded captions"):
        EncodedCaptions.load(file)


def test_a_folder_that_is_missing(encoded, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        encoded.save(tmp_path / "nowhere" / "captions.safetensors")
