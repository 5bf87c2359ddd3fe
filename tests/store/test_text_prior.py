"""Priors of captions: what is asked for, by whose encoder, how strongly; there and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, load_prior, load_text_encoder, save_prior
from smcdiff.store import _captions
from smcdiff.store._captions import CAPTIONS, CaptionReader
from smcdiff.text import TextEmbedding
from tests.store.priors import unet
from tests.store.text_priors import BERT, SHAPE, encoded, text_denoiser, text_prior
from tests.text.folders import copied, edit_weights

X = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)
CAPTION = "two red circles above a blue square"
denoise = jax.jit(lambda prior, x: prior.denoise(x, 0.7))


@pytest.fixture(scope="module")
def prior():
    return text_prior()


@pytest.fixture(scope="module")
def folder(prior, tmp_path_factory):
    return save_prior(prior, tmp_path_factory.mktemp("priors") / "shapes")


def test_strength_is_that_of_classifier_free_guidance(prior):
    """0 is without the caption, 1 the caption alone, 3 twice the difference beyond."""
    none, given = denoise(prior, X), denoise(prior.given(CAPTION), X)
    assert np.max(np.abs(given - none)) > 1e-2
    for strength in (0.0, 1.0, 3.0):
        guided = denoise(prior.given(CAPTION, strength=strength), X)
        np.testing.assert_allclose(guided, none + strength * (given - none), rtol=1e-4, atol=1e-4)


def test_captions_are_brought_into_the_form_of_the_grammar(prior):
    assert np.array_equal(
        denoise(prior.given("Two  RED circles above a blue square"), X),
        denoise(prior.given(CAPTION), X),
    )
    other = denoise(prior.given("two red circles above a green square"), X)
    assert np.any(other != denoise(prior.given(CAPTION), X))


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("two purple circles", "'purple' is not a word of the grammar"),
        ("two red circle", "not 'circle'"),
    ],
)
def test_what_is_no_caption(prior, caption, message):
    with pytest.raises(InputError, match=message):
        prior.given(caption)


def test_a_class_where_a_caption_is_meant(prior, unchecked):
    with pytest.raises(InputError, match="takes a caption: give a text, or a TextEmbedding, not"):
        prior.given(3)


def test_embeddings_made_beforehand(prior):
    """Those of the encoder, one or a batch of one, padded or not; also under jit."""
    encoder, expected = load_text_encoder(BERT), denoise(prior.given(CAPTION), X)
    text = encoder.encode([CAPTION])
    one = jax.tree.map(lambda a: a[0], encoder.encode([CAPTION], num_tokens=20))
    for embedding in (text, one):
        np.testing.assert_allclose(
            denoise(prior.given(embedding), X), expected, rtol=1e-4, atol=1e-4
        )
    traced = jax.jit(lambda prior, text, x: prior.given(text).denoise(x, 0.7))
    np.testing.assert_allclose(traced(prior, text, X), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 5, 32, 32), (1, 5, 31, 32), (1, 5, 32, 31)])
def test_embeddings_of_another_shape(prior, shape):
    n, tokens, width, pooled = shape
    text = TextEmbedding(
        jnp.zeros((n, tokens, width)), jnp.ones((n, tokens), bool), jnp.zeros((n, pooled))
    )
    with pytest.raises(InputError, match=r"takes one caption, of \(tokens, 32\) and \(32,\)"):
        prior.given(text)


def test_there_and_back(prior, folder, tmp_path):
    loaded = load_prior(folder)
    assert loaded.denoiser.reader.entries() == prior.denoiser.reader.entries()
    assert np.array_equal(denoise(loaded, X), denoise(prior, X))
    assert np.array_equal(denoise(loaded.given(CAPTION), X), denoise(prior.given(CAPTION), X))
    for strength in (None, 2.5):
        given = prior.given(CAPTION, strength)
        again = load_prior(save_prior(given, tmp_path / str(strength)))
        assert np.array_equal(denoise(again, X), denoise(given, X))
        other = again.given("a red square")  # and another one may be asked for
        assert np.array_equal(denoise(other, X), denoise(prior.given("a red square"), X))


def test_captions_beside_the_prior_need_no_encoder(prior, tmp_path):
    caption = encoded().captions[3]
    elsewhere = prior.denoiser.reader.source + "-that-is-gone"
    moved = dataclasses.replace(prior.denoiser.reader, source=elsewhere)
    with pytest.raises(InputError, match="must be encoded by 'bert'.*no text encoder named"):
        moved.read(caption)
    encoded().save(tmp_path / CAPTIONS)
    reader = dataclasses.replace(moved, file=str(tmp_path / CAPTIONS))
    found, expected = reader.read(caption), prior.denoiser.reader.read(caption)
    np.testing.assert_allclose(found.pooled, expected.pooled, atol=1e-5)
    np.testing.assert_allclose(found.states, expected.states, atol=0.02)  # float16 in the file
    with pytest.raises(InputError, match="must be encoded by 'bert'"):
        reader.read("four cyan circles")


def test_the_packaged_encoder_is_named_with_its_command(prior, monkeypatch):
    def missing(_):
        raise InputError("the package p is not installed; run: pip install --no-deps p")

    monkeypatch.setattr(_captions, "load_text_encoder", missing)
    _captions._loaded.cache_clear()
    reader = dataclasses.replace(prior.denoiser.reader, source="minilm")
    with pytest.raises(InputError, match="encoded by 'bert'.*pip install --no-deps p"):
        reader.read(CAPTION)


def test_another_encoder_is_refused(prior, tmp_path):
    def change(tensors):
        name = min(tensors)
        tensors[name] = tensors[name] + 1

    another = copied("bert", tmp_path)
    edit_weights(another, change)
    reader = dataclasses.replace(prior.denoiser.reader, source=str(another))
    with pytest.raises(InputError, match="weights differ; take the encoder"):
        reader.read(CAPTION)
    identity = load_text_encoder(another).identity
    dataclasses.replace(encoded(), encoder=identity).save(tmp_path / CAPTIONS)
    reader = dataclasses.replace(prior.denoiser.reader, file=str(tmp_path / CAPTIONS))
    with pytest.raises(InputError, match="encoded captions: made with"):
        reader.read(encoded().captions[0])


def test_units_are_those_of_the_captions():
    """Mean 0 and deviation 1 over tokens; an entry that never varies is finite."""
    captions = encoded().captions
    constant = encoded().pooled.copy()
    constant[:, 0] = 3.0
    all_of_them = dataclasses.replace(encoded(), pooled=constant)
    reader = CaptionReader.of(all_of_them, captions, BERT, None)
    text = reader.seen(all_of_them.lookup(captions, all_of_them.encoder, num_tokens=30))
    tokens = np.asarray(text.states)[np.asarray(text.mask)]
    np.testing.assert_allclose(tokens.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(tokens.std(axis=0), 1.0, atol=1e-3)
    assert np.all(np.asarray(text.states)[~np.asarray(text.mask)] == 0.0)
    np.testing.assert_allclose(text.pooled[:, 0], 0.0, atol=1e-4)
    assert reader.num_tokens == all_of_them.lengths.max()


def test_a_prior_of_classes_takes_no_caption():
    with pytest.raises(InputError, match="takes a class, a number from 0, not 'two red circles'"):
        unet(num_classes=2).given("two red circles")


def test_denoiser_is_an_argument_of_compiled_programs(prior):
    """Captions are leaves: another one is not compiled for anew."""
    given = [prior.given(caption) for caption in ("a red square", "four cyan circles")]
    assert jax.tree.structure(given[0]) == jax.tree.structure(given[1])
    assert text_denoiser().text is None
