"""`TextEncoder`: padding has no influence, captions that cannot be encoded are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, load_text_encoder
from tests.text.folders import CAPTIONS, NAMES, copied, edit_json, edit_weights

CLOSE = {"rtol": 0, "atol": 1e-5}
"""Rounding of states of size 1 to 10, which sums of another length round differently."""


@pytest.mark.parametrize("name", NAMES)
def test_padding_to_24_tokens_changes_nothing(encoders, name):
    """Also with numbers of real tokens under the mask."""
    encoder, rng = encoders[name], np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, 96, (3, 24)), jnp.int32)
    mask = jnp.arange(24)[None] < jnp.array([16, 7, 1])[:, None]
    long, short = encoder.encode_tokens(ids, mask), encoder.encode_tokens(ids[:, :16], mask[:, :16])
    np.testing.assert_allclose(long.states[:, :16], short.states, **CLOSE)
    np.testing.assert_array_equal(long.states[:, 16:], 0.0)
    np.testing.assert_allclose(long.pooled, short.pooled, **CLOSE)
    assert jnp.abs(short.pooled).max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_of_which_all_is_masked_is_zeros(encoders, name):
    """So are its derivatives, and the other captions of the batch are as without it."""
    encoder = encoders[name]
    ids = jnp.arange(16, dtype=jnp.int32).reshape(2, 8)
    mask = jnp.stack([jnp.zeros(8, bool), jnp.arange(8) < 5])
    found = encoder.encode_tokens(ids, mask)
    assert all(jnp.isfinite(leaf).all() for leaf in (found.states, found.pooled))
    assert not found.states[0].any() and not found.pooled[0].any()
    alone = encoder.encode_tokens(ids[1:], mask[1:])
    np.testing.assert_allclose(found.pooled[1:], alone.pooled, **CLOSE)
    pooled = jax.grad(lambda states: encoder.pooling(states, mask).sum())(found.states)
    assert jnp.isfinite(pooled).all()


def test_a_caption_is_the_same_in_any_company(encoders):
    """Batches of 2 and of 64, alone and with longer ones, padded to more tokens."""
    encoder = encoders["bert"]
    together = encoder.encode(CAPTIONS)
    in_pairs = encoder.encode(CAPTIONS, batch_size=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), together, in_pairs)
    alone = encoder.encode(CAPTIONS[1:2])
    tokens = alone.mask.shape[1]
    assert alone.mask.all() and tokens == together.mask[1].sum()
    np.testing.assert_allclose(alone.states[0], together.states[1, :tokens], **CLOSE)
    padded = encoder.encode(CAPTIONS[1:2], num_tokens=24)
    assert padded.states.shape == (1, 24, encoder.width) and padded.mask.sum() == tokens
    np.testing.assert_array_equal(padded.states[:, :tokens], alone.states)
    np.testing.assert_array_equal(padded.pooled, alone.pooled)


def test_the_mask_does_not_come_from_zeros(encoders):
    """A token of number 0 that is not masked is read as any other."""
    encoder = encoders["t5_relu"]
    ids, mask = jnp.array([[5, 0, 7]]), jnp.ones((1, 3), bool)
    with_zero = encoder.encode_tokens(ids, mask)
    without = encoder.encode_tokens(ids, mask.at[0, 1].set(False))
    assert jnp.abs(with_zero.pooled - without.pooled).max() > 0.1


def test_captions_that_are_too_long(encoders):
    encoder = encoders["bert"]
    assert encoder.max_tokens == 48 and encoders["t5_relu"].max_tokens is None
    longest = "a " * 46
    assert encoder.encode([longest]).mask.sum() == 48
    message = r"caption 'a a .*\.\.\.' has 49 tokens, and the encoder takes 48: shorten it"
    with pytest.raises(InputError, match=message):
        encoder.encode(["fine", longest + "a"])


def test_padding_stays_within_the_positions(encoders, tmp_path):
    """Of 45 positions: 48 tokens, a multiple of 8, would have none for the last three."""
    folder, name = copied("bert", tmp_path), "embeddings.position_embeddings.weight"
    edit_json(folder / "config.json", max_position_embeddings=45)
    edit_weights(folder, lambda tensors: tensors.update({name: tensors[name][:45].copy()}))
    encoder = load_text_encoder(folder)
    assert encoder.max_tokens == 45
    captions = ["a " * 43]
    found, expected = encoder.encode(captions), encoders["bert"].encode(captions)
    np.testing.assert_allclose(found.states, expected.states, **CLOSE)


@pytest.mark.parametrize(
    ("captions", "message"),
    [([], "is empty"), ("two red", "in brackets"), (["two", 3], "caption 1 is a int"),
     (["two \udcff"], "has bytes that are no characters"),
     ([" ".join(["two"] * 5)], "has 7 tokens, and num_tokens is 4: shorten it")],
)  # fmt: skip
def test_captions_that_cannot_be_encoded(encoders, unchecked, captions, message):
    with pytest.raises(InputError, match=message):
        encoders["bert"].encode(captions, num_tokens=4)


@pytest.mark.parametrize("name", ["num_tokens", "batch_size"])
@pytest.mark.parametrize("value", [0, True, 2.0])
def test_sizes_that_are_none(encoders, unchecked, name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        encoders["bert"].encode(["two"], **{name: value})


def test_progress(encoders):
    seen = []
    encoders["bert"].encode(
        ["a", "two", "red"], batch_size=2, progress_bar=lambda *step: seen.append(step)
    )
    assert seen == [(2, 3, {}), (3, 3, {})]


def test_an_encoder_is_a_pytree(encoders):
    encoder = encoders["bert"]
    leaves = jax.tree.leaves(encoder)
    assert len(leaves) == len(encoder.architecture.shapes())
    ids, mask = jnp.array([[2, 5, 3]]), jnp.ones((1, 3), bool)
    found = jax.jit(lambda encoder: encoder.encode_tokens(ids, mask).pooled)(encoder)
    np.testing.assert_allclose(found, encoder.encode_tokens(ids, mask).pooled, **CLOSE)
