"""States and tokens are those of transformers, whose outputs make_references.py wrote.

The bound of 1e-5 is on the greatest error over the greatest output: both compute in float32.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.text import _bert, _t5
from smcdiff.text._layers import ACTIVATIONS, attention
from smcdiff.text._t5 import T5
from tests.text.folders import CAPTIONS, NAMES, REFERENCES, outputs, relative_error

BOUND = 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_states_of_ragged_tokens(encoders, name):
    """Also of bfloat16 weights in shards (t5_gated_gelu) and with a decoder beside (t5_relu)."""
    expected = outputs(name)
    ids, mask = (jnp.asarray(expected[f"tokens_{part}"]) for part in ("ids", "mask"))
    found = encoders[name].encode_tokens(ids, mask)
    assert found.states.dtype == jnp.float32
    assert relative_error(found.states, expected["tokens_states"]) < BOUND


@pytest.mark.parametrize("name", NAMES)
def test_captions(encoders, name):
    """tokenizer.json cuts at 4 tokens and pads to 16 (bert): neither is done."""
    expected = outputs(name)
    found = encoders[name].encode(CAPTIONS)
    np.testing.assert_array_equal(found.mask, expected["captions_mask"])
    assert relative_error(found.states, expected["captions_states"]) < BOUND
    states, count = expected["captions_states"], found.mask.sum(axis=1, keepdims=True)
    pooled = states.sum(axis=1) / count
    if name == "bert":  # as its modules.json says
        pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    assert relative_error(found.pooled, pooled) < BOUND


def uncompiled(encoder, name):
    """States of the ragged tokens, with the functions that the module has at this moment."""
    expected = outputs(name)
    ids, mask = (jnp.asarray(expected[f"tokens_{part}"]) for part in ("ids", "mask"))
    states = encoder.architecture(encoder.weights, ids, mask)
    return relative_error(np.where(mask[..., None], states, 0.0), expected["tokens_states"])


def scaled(patch):
    def with_scale(*args, **options):
        return attention(*args, **(options | {"scale": 16**-0.5}))

    patch.setattr(_t5, "attention", with_scale)


def bias_once(patch):
    calls = []

    def first_only(*args, bias, **options):
        calls.append(bias)
        return attention(*args, bias=bias if len(calls) == 1 else None, **options)

    patch.setattr(_t5, "attention", first_only)


def one_direction(patch):
    both = T5.distance_buckets
    patch.setattr(T5, "distance_buckets", lambda self, tokens: both(self, tokens) % 16)


def with_mean(patch):
    norm = T5._norm

    def centred(self, weights, name, x):
        return norm(self, weights, name, x - jnp.mean(x, axis=-1, keepdims=True))

    patch.setattr(T5, "_norm", centred)


def exact_gelu(patch):
    patch.setitem(ACTIVATIONS, "gelu_new", ACTIVATIONS["gelu"])


TRAPS = [scaled, bias_once, one_direction, with_mean, exact_gelu]


@pytest.mark.parametrize("trap", TRAPS)
def test_the_references_see_each_trap_of_t5(encoders, monkeypatch, trap):
    """Whoever falls into one of them is beyond the bound; so the parity above rules them out."""
    name = "t5_gated_gelu"
    assert uncompiled(encoders[name], name) < BOUND
    trap(monkeypatch)
    assert uncompiled(encoders[name], name) > 5 * BOUND


def test_the_references_see_another_gelu_of_bert(encoders, monkeypatch):
    assert uncompiled(encoders["bert"], "bert") < BOUND
    monkeypatch.setitem(_bert.ACTIVATIONS, "gelu", ACTIVATIONS["gelu_new"])
    assert uncompiled(encoders["bert"], "bert") > 5 * BOUND


@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (16, 50)])
def test_buckets_of_all_distances(encoders, buckets, most):
    """Row i of the table is what token i sees: distances -i to 300 - i."""
    sizes = vars(encoders["t5_relu"].architecture) | {"buckets": buckets, "max_distance": most}
    table = T5(**sizes).distance_buckets(301)
    with np.load(REFERENCES / "t5_buckets.npz") as arrays:
        expected = arrays[f"{buckets}_{most}"]
    np.testing.assert_array_equal(table[0], expected[300:])
    np.testing.assert_array_equal(table[300], expected[:301])


def test_what_does_not_fit_into_float16_is_finite(encoders):
    """Weights in float16, as files have them, and states beyond 65,504 (as T5-XXL's are)."""
    encoder = encoders["t5_relu"]
    expected = outputs("t5_relu")
    ids, mask = (jnp.asarray(expected[f"tokens_{part}"]) for part in ("ids", "mask"))
    short = {name: weight.astype(jnp.float16) for name, weight in encoder.weights.items()}
    for name in short:
        if name.endswith("DenseReluDense.wo.weight"):
            short[name] = short[name] * 20_000
    long = {name: weight.astype(jnp.float32) for name, weight in short.items()}
    assert jnp.isfinite(jnp.concatenate([weight.ravel() for weight in short.values()])).all()
    found, wanted = (encoder.architecture(weights, ids, mask) for weights in (short, long))
    feed = "encoder.block.0.layer.1.DenseReluDense"
    hidden = encoder.architecture._feed_forward(short, feed, wanted)
    assert jnp.max(hidden) > jnp.finfo(jnp.float16).max
    assert jnp.isfinite(found).all()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
