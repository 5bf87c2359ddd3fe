"""Cross-attention to text, one for one the blocks of diffusers' ``Transformer2DModel``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from smcdiff.networks._blocks import SMALL, Stage
from smcdiff.networks._convolution import Conv

_GROUP_NORM_EPS = 1e-6
"""Of ``Transformer2DModel``, whatever the resnets have."""


class Tokens(NamedTuple):
    """The tokens of captions as a network attends to them.

    Attributes:
        states: the network's null token, and those of the captions.
        mask: which may be looked at; of each caption at least one, or the softmax is NaN.
    """

    states: Float[Array, "b n k"]
    mask: Bool[Array, "b n"]


class TokenAttention(nnx.Module):
    """Attention from the positions of an image to themselves or to tokens."""

    def __init__(self, size: int, source: int, heads: int, *, rngs: nnx.Rngs):
        """Channels, channels of what is looked at, and number of heads."""
        self.heads = heads
        self.to_q = nnx.Linear(size, size, use_bias=False, rngs=rngs)
        self.to_k = nnx.Linear(source, size, use_bias=False, rngs=rngs)
        self.to_v = nnx.Linear(source, size, use_bias=False, rngs=rngs)
        self.to_out = nnx.List([nnx.Linear(size, size, kernel_init=SMALL, rngs=rngs)])

    def __call__(
        self,
        x: Float[Array, "b m c"],
        source: Float[Array, "b n k"],
        mask: Bool[Array, "b n"] | None = None,
    ) -> Float[Array, "b m c"]:
        """What the positions take from the source, where the mask lets them look."""
        query, key, value = (
            project(a).reshape(*a.shape[:2], self.heads, -1)
            for project, a in ((self.to_q, x), (self.to_k, source), (self.to_v, source))
        )
        seen = None if mask is None else mask[:, None, None]
        mixed = jax.nn.dot_product_attention(query, key, value, mask=seen)
        return self.to_out[0](mixed.reshape(x.shape))


class GEGLU(nnx.Module):
    """A dense layer, half of it as the other half's gate (Shazeer 2020)."""

    def __init__(self, size: int, out: int, *, rngs: nnx.Rngs):
        """Channels in and out."""
        self.proj = nnx.Linear(size, 2 * out, rngs=rngs)

    def __call__(self, x: Float[Array, "b m c"]) -> Float[Array, "b m o"]:
        """The gated half."""
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return value * jax.nn.gelu(gate, approximate=False)


class FeedForward(nnx.Module):
    """Two dense layers, four times as wide between them."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        """Channels."""
        # The second entry is diffusers' dropout, without parameters.
        last = nnx.Linear(4 * size, size, kernel_init=SMALL, rngs=rngs)
        self.net: Any = nnx.List([GEGLU(size, 4 * size, rngs=rngs), None, last])

    def __call__(self, x: Float[Array, "b m c"]) -> Float[Array, "b m c"]:
        """Same shape."""
        return self.net[2](self.net[0](x))


class BasicTransformerBlock(nnx.Module):
    """Self-attention, cross-attention and a feed-forward network, each on normalised channels."""

    def __init__(self, size: int, heads: int, source: int, only_cross: bool, *, rngs: nnx.Rngs):
        """Channels, heads, channels of the tokens, and tokens in the self-attention's place too."""
        self.only_cross = only_cross
        self.norm1 = nnx.LayerNorm(size, epsilon=1e-5, rngs=rngs)
        self.attn1 = TokenAttention(size, source if only_cross else size, heads, rngs=rngs)
        self.norm2 = nnx.LayerNorm(size, epsilon=1e-5, rngs=rngs)
        self.attn2 = TokenAttention(size, source, heads, rngs=rngs)
        self.norm3 = nnx.LayerNorm(size, epsilon=1e-5, rngs=rngs)
        self.ff = FeedForward(size, rngs=rngs)

    def __call__(self, x: Float[Array, "b m c"], tokens: Tokens) -> Float[Array, "b m c"]:
        """Same shape."""
        normed = self.norm1(x)
        x = x + (self.attn1(normed, *tokens) if self.only_cross else self.attn1(normed, normed))
        x = x + self.attn2(self.norm2(x), *tokens)
        return x + self.ff(self.norm3(x))


class Transformer2D(nnx.Module):
    """Transformer blocks over the positions of an image, with a residual connection."""

    def __init__(
        self,
        size: int,
        layers: int,
        only_cross: bool,
        config: Any,
        *,
        rngs: nnx.Rngs,
    ):
        """Channels, number of blocks, and the configuration of the U-Net."""
        self.norm = nnx.GroupNorm(size, config.norm_num_groups, epsilon=_GROUP_NORM_EPS, rngs=rngs)
        heads, source = config.attention_head_dim, config.cross_attention_dim
        self.proj_in = self._projection(size, config, rngs=rngs)
        self.transformer_blocks = nnx.List(
            [BasicTransformerBlock(size, heads, source, only_cross, rngs=rngs)
             for _ in range(layers)]
        )  # fmt: skip
        self.proj_out = self._projection(size, config, kernel_init=SMALL, rngs=rngs)

    @staticmethod
    def _projection(size: int, config: Any, **options: Any) -> nnx.Module:
        """A dense layer of the channels, in one of the two shapes that its weights may have."""
        if config.use_linear_projection:
            return nnx.Linear(size, size, **options)
        return Conv(size, size, 1, **options)

    def __call__(self, x: Float[Array, "b h w c"], tokens: Tokens) -> Float[Array, "b h w c"]:
        """Same shape."""
        hidden = self.proj_in(self.norm(x))
        positions = hidden.reshape(len(x), -1, x.shape[-1])
        for block in self.transformer_blocks:
            positions = block(positions, tokens)
        return x + self.proj_out(positions.reshape(hidden.shape))


class TextStage(Stage):
    """The resnets of one resolution, each followed by attention to the text, and the resampling."""

    def __init__(
        self, sizes, out, embedding, config, *, attention, layers, only_cross, resample, rngs
    ):
        """As `Stage`; ``layers`` transformer blocks in each of ``attention`` many transformers."""
        super().__init__(sizes, out, embedding, config, attention=0, resample=resample, rngs=rngs)
        if attention:
            self.attentions = nnx.List(
                [Transformer2D(out, layers, only_cross, config, rngs=rngs)
                 for _ in range(attention)]
            )  # fmt: skip

    def attend(self, index: int, x: Array, embedding: Array, tokens: Tokens) -> Array:
        """Resnet ``index`` and its transformer, if there is one."""
        x = self.resnets[index](x, embedding)
        if hasattr(self, "attentions") and index < len(self.attentions):
            x = self.attentions[index](x, tokens)
        return x
