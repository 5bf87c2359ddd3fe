"""The text-conditional U-Net: parity with diffusers, masks, null captions, Imagen's flags."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from smcdiff import InputError
from smcdiff.networks.unet import load_state_dict, state_dict
from smcdiff.networks.unet_condition import UNet2DCondition, UNet2DConditionConfig
from smcdiff.text import TextEmbedding

REFERENCES = Path(__file__).parent / "references"
NAMES = ("shapes_like", "more_of_it")
call = nnx.jit(lambda net, *arguments: net(*arguments))


def reference(name):
    """Inputs and outputs of diffusers, and the network with its weights."""
    with np.load(REFERENCES / f"{name}.npz") as file:
        arrays = dict(file)
    config = UNet2DConditionConfig.from_dict(json.loads(str(arrays["config"])))
    weights = {k.removeprefix("weights/"): v for k, v in arrays.items() if k.startswith("weights/")}
    unet = nnx.eval_shape(lambda: UNet2DCondition(config, rngs=nnx.Rngs(0)))
    load_state_dict(unet, weights)
    return arrays, weights, unet


def inputs(arrays, **changes):
    images = jnp.asarray(arrays["x"]), jnp.asarray(arrays["timesteps"])
    text = {name: jnp.asarray(arrays[name]) for name in ("states", "mask", "pooled")} | changes
    return *images, TextEmbedding(**text)


@pytest.fixture(scope="module")
def shapes_like():
    return reference("shapes_like")


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_diffusers(name):
    """Made by make_references.py; the names of all weights are diffusers' but the null token's."""
    arrays, weights, unet = reference(name)
    error = np.abs(call(unet, *inputs(arrays)) - arrays["output"])
    assert np.max(error) < 1e-5 * np.max(np.abs(arrays["output"]))
    found = state_dict(unet)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in weights.items()}
    assert all(np.array_equal(found[k], weights[k]) for k in weights)


def test_padding_changes_nothing(shapes_like):
    """5 tokens padded to 16, or to 24 with noise in what is hidden."""
    arrays, _, unet = shapes_like
    noise = jax.random.normal(jax.random.key(0), (3, 24, 12))

    def padded(count, noise):
        states = noise.at[:, :5].set(arrays["states"])[:, :count]
        return inputs(arrays, states=states, mask=jnp.pad(arrays["mask"], ((0, 0), (0, count - 5))))

    plain = call(unet, *padded(16, jnp.zeros_like(noise)))
    more = call(unet, *padded(24, noise))
    np.testing.assert_allclose(more, plain, rtol=0, atol=1e-6 * np.max(np.abs(plain)))
    np.testing.assert_allclose(plain, arrays["output"], rtol=0, atol=1e-5 * np.max(np.abs(plain)))


def test_a_hidden_caption_is_the_null_caption(shapes_like):
    """Bit for bit, whatever its tokens and its pooled vector are; and never NaN."""
    arrays, _, unet = shapes_like
    hidden = {"mask": jnp.zeros((3, 5), bool)}
    first = call(unet, *inputs(arrays, **hidden))
    other = {"states": 5.0 - jnp.asarray(arrays["states"]), "pooled": jnp.full((3, 10), 7.0)}
    np.testing.assert_array_equal(first, call(unet, *inputs(arrays, **hidden, **other)))
    none = {"states": jnp.zeros((3, 0, 12)), "mask": jnp.zeros((3, 0), bool)}
    null = call(unet, *inputs(arrays, **none))
    assert np.all(np.isfinite(first)) and np.any(first[0] != arrays["output"][0])
    np.testing.assert_allclose(first, null, rtol=0, atol=1e-6 * np.max(np.abs(first)))


def test_captions_matter_by_their_tokens_and_by_their_pooled_vector(shapes_like):
    arrays, _, unet = shapes_like
    plain = call(unet, *inputs(arrays))
    for change in ({"states": 1.1 * arrays["states"]}, {"pooled": 1.1 * arrays["pooled"]}):
        changed = call(unet, *inputs(arrays, **{k: jnp.asarray(v) for k, v in change.items()}))
        differs = np.any(changed != plain, axis=(1, 2, 3))
        assert differs.tolist() == [True, True, False]  # of the third all is hidden


@pytest.mark.slow
def test_efficient():
    """Imagen's order: convolutions at half the resolution, blocks of each, scaled skips."""
    config = UNet2DConditionConfig(
        8, 3, 3, (16, 32), (1, 2), ("DownBlock2D",) * 2, ("UpBlock2D",) * 2, add_attention=False,
        cross_attention_dim=8, resample_first=True, skip_scale=2**-0.5,
    )  # fmt: skip
    unet = nnx.jit(lambda: UNet2DCondition(config, rngs=nnx.Rngs(0)))()
    shapes = {name: value.shape for name, value in state_dict(unet).items()}
    expected = {
        "down_blocks.0.downsamplers.0.conv.weight": (16, 16, 3, 3),
        "down_blocks.1.downsamplers.0.conv.weight": (16, 16, 3, 3),
        "down_blocks.1.resnets.0.conv1.weight": (32, 16, 3, 3),
        "down_blocks.1.resnets.1.conv1.weight": (32, 32, 3, 3),
        "up_blocks.0.resnets.0.conv1.weight": (32, 64, 3, 3),
        "up_blocks.0.resnets.2.conv1.weight": (32, 48, 3, 3),
        "up_blocks.1.resnets.0.conv1.weight": (16, 48, 3, 3),
        "up_blocks.1.upsamplers.0.conv.weight": (16, 16, 3, 3),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert "down_blocks.1.resnets.2.conv1.weight" not in shapes
    text = TextEmbedding(jnp.ones((2, 3, 8)), jnp.ones((2, 3), bool), jnp.ones((2, 4)))
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([10.0, 900.0])
    out = call(unet, x, t, text)
    assert out.shape == x.shape and np.all(np.isfinite(out))
    plain = dataclasses.replace(config, skip_scale=1.0)
    same = nnx.eval_shape(lambda: UNet2DCondition(plain, rngs=nnx.Rngs(0)))
    load_state_dict(same, state_dict(unet))
    assert np.any(call(same, x, t, text) != out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"down_block_types": ("DownBlock2D",)}, "down_block_types has 1 entries"),
        ({"layers_per_block": (1, 2, 3)}, "layers_per_block has 3 entries, and there are 2"),
        ({"up_block_types": ("UpBlock2D", "AttnUpBlock2D")}, "no block 'AttnUpBlock2D'"),
        ({"attention_head_dim": 3}, "32 channels do not divide into 3 heads"),
        ({"class_embed_type": "projection"}, "class_embed_type is projection"),
        ({"class_embed_type": "timestep"}, "class_embed_type is timestep"),
        ({"num_class_embeds": 3}, "num_class_embeds is for UNet2D"),
    ],
)
def test_configurations_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        UNet2DConditionConfig(8, 3, 3, **changes)


def test_unknown_keys():
    with pytest.raises(InputError, match="unknown keys"):
        UNet2DConditionConfig.from_dict({"sample_size": 8, "dropout": 0.1})
