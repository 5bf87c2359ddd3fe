"""Blocks of the U-Net, one for one those of diffusers' ``UNet2DModel``; NHWC inside.

Attribute names are the parameter names of that model, so that weights map without a table.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from smcdiff.networks._convolution import Conv

SMALL = nnx.initializers.variance_scaling(1e-4, "fan_in", "normal")
"""Of the last layer before a residual connection, or the output: a network starts as if without."""


def timestep_embedding(
    timesteps: Float[Array, " b"], size: int, *, flip_sin_to_cos: bool, freq_shift: float
) -> Float[Array, "b size"]:
    """Sinusoidal embedding (Vaswani et al. 2017; Ho et al. 2020).

    Args:
        timesteps: (b,), on DDPM's scale of 0 to 1000.
        size: even number of channels.
        flip_sin_to_cos: cosines first.
        freq_shift: subtracted from the number of frequencies in the exponent's denominator.

    Returns:
        (b, size).
    """
    half = size // 2
    exponent = -jnp.log(10_000.0) * jnp.arange(half, dtype=timesteps.dtype) / (half - freq_shift)
    angles = timesteps[:, None] * jnp.exp(exponent)[None]
    parts = [jnp.sin(angles), jnp.cos(angles)]
    return jnp.concatenate(parts[::-1] if flip_sin_to_cos else parts, axis=-1)


class TimestepEmbedding(nnx.Module):
    """Two dense layers on the sinusoidal embedding."""

    def __init__(self, size: int, out: int, condition: int | None = None, *, rngs: nnx.Rngs):
        """Sizes of the sinusoidal and of the returned embedding, and of a condition, if any."""
        if condition is not None:
            self.cond_proj = nnx.Linear(condition, size, use_bias=False, rngs=rngs)
        self.linear_1 = nnx.Linear(size, out, rngs=rngs)
        self.linear_2 = nnx.Linear(out, out, rngs=rngs)

    def __call__(
        self, embedding: Float[Array, "b size"], condition: Float[Array, "b k"] | None = None
    ) -> Float[Array, "b out"]:
        """(b, size) to (b, out); the condition, where there is one, joins before the layers."""
        if condition is not None:
            embedding = embedding + self.cond_proj(condition)
        return self.linear_2(jax.nn.silu(self.linear_1(embedding)))


class Stem(nnx.Module):
    """The first layers of every network on noisy images: of the image, and of the time."""

    def __init__(self, config: Any, *, condition: int | None = None, rngs: nnx.Rngs):
        """Random weights; ``config`` is a ``UNet2DConfig``, ``condition`` the size of one."""
        self.config = config
        channels = config.block_out_channels[0]
        self.conv_in = Conv(config.in_channels, channels, 3, padding=1, rngs=rngs)
        self.time_embedding = TimestepEmbedding(channels, 4 * channels, condition, rngs=rngs)

    def embed(
        self, timesteps: Float[Array, " b"], condition: Float[Array, "b k"] | None = None
    ) -> Float[Array, "b e"]:
        """The embedding of timesteps, on DDPM's scale of 0 to 1000, and of a condition."""
        config = self.config
        sinusoids = timestep_embedding(
            timesteps, config.block_out_channels[0],
            flip_sin_to_cos=config.flip_sin_to_cos, freq_shift=config.freq_shift,
        )  # fmt: skip
        return self.time_embedding(sinusoids, condition)


class UNetEnds(Stem):
    """The first and the last layers of a U-Net; its blocks are a subclass's."""

    def make_output(self, rngs: nnx.Rngs) -> None:
        """Makes the last layers: called last, for weights are drawn in the order of the layers."""
        config = self.config
        channels = config.block_out_channels[0]
        self.conv_norm_out = nnx.GroupNorm(
            channels, config.norm_num_groups, epsilon=config.norm_eps, rngs=rngs
        )
        self.conv_out = Conv(
            channels, config.out_channels, 3, padding=1, kernel_init=SMALL, rngs=rngs
        )

    def output(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        """Of the last block's."""
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class ResnetBlock2D(nnx.Module):
    """Group norm, SiLU and convolution, twice, with the time embedding in between."""

    def __init__(self, size: int, out: int, embedding: int, groups: int, eps: float, *, rngs):
        """Channels in and out, size of the time embedding, group norm's groups and epsilon."""
        self.norm1 = nnx.GroupNorm(size, groups, epsilon=eps, rngs=rngs)
        self.conv1 = Conv(size, out, 3, padding=1, rngs=rngs)
        self.time_emb_proj = nnx.Linear(embedding, out, rngs=rngs)
        self.norm2 = nnx.GroupNorm(out, groups, epsilon=eps, rngs=rngs)
        self.conv2 = Conv(out, out, 3, padding=1, kernel_init=SMALL, rngs=rngs)
        if size != out:
            self.conv_shortcut = Conv(size, out, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"]) -> Array:
        """(b, h, w, size) to (b, h, w, out)."""
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(jax.nn.silu(embedding))[:, None, None]
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        return (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x) + hidden


class Attention(nnx.Module):
    """Self-attention over all positions, with a residual connection."""

    def __init__(self, size: int, head_size: int, groups: int, eps: float, *, rngs: nnx.Rngs):
        """Channels, channels a head, group norm's groups and epsilon."""
        self.head_size = head_size
        self.group_norm = nnx.GroupNorm(size, groups, epsilon=eps, rngs=rngs)
        self.to_q = nnx.Linear(size, size, rngs=rngs)
        self.to_k = nnx.Linear(size, size, rngs=rngs)
        self.to_v = nnx.Linear(size, size, rngs=rngs)
        self.to_out = nnx.List([nnx.Linear(size, size, kernel_init=SMALL, rngs=rngs)])

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Same shape."""
        batch, *_, size = x.shape
        tokens = self.group_norm(x).reshape(batch, -1, size)
        heads = (batch, tokens.shape[1], size // self.head_size, self.head_size)
        query, key, value = (f(tokens).reshape(heads) for f in (self.to_q, self.to_k, self.to_v))
        mixed = jax.nn.dot_product_attention(query, key, value).reshape(tokens.shape)
        return x + self.to_out[0](mixed).reshape(x.shape)


class Resample2D(nnx.Module):
    """A convolution that halves the image, or doubles it first by nearest neighbour."""

    def __init__(self, size: int, *, up: bool, rngs: nnx.Rngs):
        """Channels and direction."""
        self.up = up
        strides = (1, 1) if up else (2, 2)
        self.conv = Conv(size, size, 3, strides=strides, padding=1, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Array:
        """(b, h, w, c) to half or twice the height and width."""
        if self.up:
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return self.conv(x)


class Stage(nnx.Module):
    """The resnets, attentions and resampling of one resolution; also the middle of the U-Net."""

    def __init__(self, sizes, out, embedding, config, *, attention, resample, rngs):
        """``sizes`` are the resnets' input channels; ``resample`` is "down", "up" or None."""
        groups, eps = config.norm_num_groups, config.norm_eps
        self.resnets = nnx.List(
            [ResnetBlock2D(size, out, embedding, groups, eps, rngs=rngs) for size in sizes]
        )
        if attention:
            head = config.attention_head_dim
            self.attentions = nnx.List(
                [Attention(out, head, groups, eps, rngs=rngs) for _ in range(attention)]
            )
        if resample == "down":
            self.downsamplers = nnx.List([Resample2D(out, up=False, rngs=rngs)])
        if resample == "up":
            self.upsamplers = nnx.List([Resample2D(out, up=True, rngs=rngs)])

    def layer(self, index: int, x: Array, embedding: Array) -> Array:
        """Resnet ``index`` and its attention, if there is one."""
        x = self.resnets[index](x, embedding)
        if hasattr(self, "attentions") and index < len(self.attentions):
            x = self.attentions[index](x)
        return x
