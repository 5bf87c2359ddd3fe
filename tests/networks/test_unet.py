"""The U-Net: names and shapes of diffusers' UNet2DModel, patches, and the way there and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from smcdiff import InputError
from smcdiff.networks._blocks import timestep_embedding
from smcdiff.networks.unet import PatchedUNet, UNet2D, UNet2DConfig, load_state_dict, state_dict

CONFIG = UNet2DConfig(8, 4, 4, (16, 32), 1, attention_head_dim=8)


@pytest.fixture(scope="module")
def unet():
    return nnx.jit(lambda: UNet2D(CONFIG, rngs=nnx.Rngs(0)))()


def test_parameter_names_and_layouts_are_those_of_diffusers(unet):
    """A sample of names and PyTorch shapes, from diffusers 0.30's UNet2DModel.state_dict()."""
    shapes = {name: value.shape for name, value in state_dict(unet).items()}
    expected = {
        "conv_in.weight": (16, 4, 3, 3),
        "time_embedding.linear_1.weight": (64, 16),
        "time_embedding.linear_2.bias": (64,),
        "down_blocks.0.resnets.0.norm1.weight": (16,),
        "down_blocks.0.resnets.0.conv1.weight": (16, 16, 3, 3),
        "down_blocks.0.resnets.0.time_emb_proj.weight": (16, 64),
        "down_blocks.0.downsamplers.0.conv.weight": (16, 16, 3, 3),
        "down_blocks.1.resnets.0.conv_shortcut.weight": (32, 16, 1, 1),
        "down_blocks.1.attentions.0.group_norm.weight": (32,),
        "down_blocks.1.attentions.0.to_q.weight": (32, 32),
        "down_blocks.1.attentions.0.to_out.0.bias": (32,),
        "mid_block.resnets.1.conv2.weight": (32, 32, 3, 3),
        "mid_block.attentions.0.to_v.bias": (32,),
        "up_blocks.0.resnets.0.conv1.weight": (32, 64, 3, 3),
        "up_blocks.0.upsamplers.0.conv.weight": (32, 32, 3, 3),
        "up_blocks.1.resnets.1.conv1.weight": (16, 32, 3, 3),
        "conv_norm_out.weight": (16,),
        "conv_out.bias": (4,),
    }
    assert {name: shapes.get(name) for name in expected} == expected


def test_class_embeddings():
    config = dataclasses.replace(CONFIG, num_class_embeds=3)
    unet = nnx.jit(lambda: UNet2D(config, rngs=nnx.Rngs(0)))()
    assert state_dict(unet)["class_embedding.weight"].shape == (3, 64)
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 4)), jnp.array([10.0, 900.0])
    call = nnx.jit(lambda net, *arrays: net(*arrays))
    same = call(unet, jnp.stack([x[0], x[0]]), t[jnp.array([0, 0])], jnp.array([0, 2]))
    assert jnp.any(same[0] != same[1])
    with pytest.raises(InputError, match="num_class_embeds is 3, but class_labels are missing"):
        unet(x, t)


def test_labels_without_class_embeddings(unet):
    with pytest.raises(InputError, match="num_class_embeds is None, but class_labels are given"):
        unet(jnp.zeros((1, 8, 8, 4)), jnp.zeros(1), jnp.zeros(1, jnp.int32))


def test_state_dict_there_and_back(unet):
    other = nnx.eval_shape(lambda: UNet2D(CONFIG, rngs=nnx.Rngs(0)))  # no weights of its own
    load_state_dict(other, state_dict(unet))
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 4)), jnp.array([10.0, 900.0])
    call = nnx.jit(lambda net, x, t: net(x, t))
    np.testing.assert_array_equal(call(other, x, t), call(unet, x, t))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv_in.weight"), "1 parameters are missing, first 'conv_in.weight'"),
        (lambda w: w.update(extra=np.zeros(1)), "1 unexpected parameters, first 'extra'"),
        (lambda w: w.update({"conv_out.bias": np.zeros(5)}), "'conv_out.bias' has shape"),
    ],
)
def test_weights_that_do_not_fit(unet, change, message):
    weights = state_dict(unet)
    change(weights)
    with pytest.raises(InputError, match=message):
        load_state_dict(unet, weights)


def test_unknown_configuration():
    with pytest.raises(InputError, match="unknown keys"):
        UNet2DConfig.from_dict({"sample_size": 8, "dropout": 0.1})
    with pytest.raises(InputError, match="silu"):
        values = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "act_fn": "gelu"}
        UNet2DConfig.from_dict(values)


def test_patches_are_pixel_unshuffle():
    """Channel c of patch pixel (i, j) goes to channel 4 c + 2 i + j, as in PyTorch."""

    class Identity(nnx.Module):
        def __call__(self, x, timesteps, class_labels):
            self.seen = x
            return x

    inner = Identity()
    x = jnp.arange(2 * 4 * 4 * 3.0).reshape(2, 4, 4, 3)
    out = PatchedUNet(inner, 2)(x, jnp.zeros(2))
    np.testing.assert_array_equal(out, x)
    assert inner.seen.shape == (2, 2, 2, 12)
    np.testing.assert_array_equal(inner.seen[0, 0, 1, 2 * 4 + 2 * 1 + 0], x[0, 1, 2, 2])


def test_time_embedding_is_sinusoidal():
    """Half frequencies 10000^(-i/8), cosines first (flip_sin_to_cos)."""
    embedding = timestep_embedding(jnp.array([3.0]), 16, flip_sin_to_cos=True, freq_shift=0)
    angles = 3.0 * 10_000.0 ** (-np.arange(8) / 8)
    np.testing.assert_allclose(embedding[0], [*np.cos(angles), *np.sin(angles)], atol=1e-5)
