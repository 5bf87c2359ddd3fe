"""Two towers that bring pictures and captions to unit vectors (CLIP, Radford et al. 2021).

The descending blocks of a U-Net see the picture, at any noise level; or dense layers see frozen
features of it. The captions' side is a small head on what a frozen text encoder gives: attention
over its token states, beside its pooled vector, for the pooled vectors of captions that differ by
one word hardly differ.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from smcdiff.networks._contrast import ImageEncoder
from smcdiff.networks._transformer import TokenAttention
from smcdiff.networks.unet import UNet2DConfig
from smcdiff.text.embedding import TextEmbedding

LARGEST_SCALE = 100.0
"""Of the cosines, as in CLIP."""
_FIRST_TEMPERATURE = 0.07
"""One over the scale at the start, as in CLIP."""


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """What a `ClipNetwork` is made from.

    Attributes:
        event_shape: of a picture, (h, w, c).
        network: the U-Net whose descending blocks see it; None where frozen features of it are
            seen.
        patch: pixels folded into channels, each way.
        states_width: of the encoder's token states.
        pooled_width: of its pooled vectors.
        hidden: units of the dense layers.
        features: entries of the unit vectors.
        text_channels: of the tokens as they are attended to.
        heads: of that attention.
        image_width: entries of the frozen features of a picture, where there is no U-Net.
    """

    event_shape: tuple[int, ...]
    network: UNet2DConfig | None
    patch: int
    states_width: int
    pooled_width: int
    hidden: int = 256
    features: int = 128
    text_channels: int = 64
    heads: int = 8
    image_width: int | None = None

    def entries(self) -> dict[str, Any]:
        """As config.json has it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> ClipConfig:
        """From a config.json, whose other entries are not read."""
        names = {field.name for field in dataclasses.fields(cls)} - {"image_width"}
        found = {name: entries[name] for name in names}
        found["image_width"] = entries.get("image_width")  # not in folders of before
        if found["network"] is not None:
            found["network"] = UNet2DConfig.from_dict(found["network"])
        elif not isinstance(found["image_width"], int):
            raise ValueError("neither a network nor image_width")
        found["event_shape"] = tuple(found["event_shape"])
        return cls(**found)


class TextHead(nnx.Module):
    """Captions, as vectors of a frozen encoder in standard units, to features."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        """Random weights."""
        width, channels = config.states_width, config.text_channels
        draw = jax.random.normal
        self.query = nnx.Param(draw(rngs.params(), (1, 1, channels)))
        self.null_token = nnx.Param(draw(rngs.params(), (1, 1, width)))
        self.attention = TokenAttention(channels, width, config.heads, rngs=rngs)
        self.linear_tokens = nnx.Linear(channels, config.hidden, rngs=rngs)
        self.linear_pooled = nnx.Linear(config.pooled_width, config.hidden, rngs=rngs)
        self.linear_mid = nnx.Linear(config.hidden, config.hidden, rngs=rngs)
        self.linear_out = nnx.Linear(config.hidden, config.features, rngs=rngs)

    def __call__(self, text: TextEmbedding) -> Float[Array, "n k"]:
        """Features of n captions; of one that is hidden whole nothing has an influence."""
        count, is_there = len(text.mask), jnp.any(text.mask, axis=-1, keepdims=True)
        null = jnp.broadcast_to(self.null_token[...], (count, 1, text.states.shape[-1]))
        tokens = jnp.concatenate([null, text.states], axis=1)
        mask = jnp.concatenate([jnp.ones((count, 1), bool), text.mask], axis=1)
        query = jnp.broadcast_to(self.query[...], (count, *self.query.shape[1:]))
        attended = query + self.attention(query, tokens, mask)
        pooled = self.linear_pooled(jnp.where(is_there, text.pooled, 0.0))
        hidden = pooled + self.linear_tokens(attended[:, 0])
        hidden = hidden + self.linear_mid(jax.nn.silu(hidden))
        return self.linear_out(jax.nn.silu(hidden))


class FeatureEncoder(nnx.Module):
    """Dense layers on frozen features of pictures, in standard units."""

    def __init__(self, size: int, width: int, *, rngs: nnx.Rngs):
        """Random weights; entries of the features, and units."""
        self.linear_in = nnx.Linear(size, width, rngs=rngs)
        self.linear_mid = nnx.Linear(width, width, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b k"], timesteps: Float[Array, " b"]
    ) -> Float[Array, "b units"]:
        """Of clean pictures: the timesteps have no influence."""
        hidden = self.linear_in(x)
        return hidden + self.linear_mid(jax.nn.silu(hidden))


class ClipNetwork(nnx.Module):
    """Both towers, and the scale of their cosines.

    The scale is exp(log_scale), held below 100 as 1 / (1 / 100 + exp(-log_scale)). CLIP clips it
    between the optimiser's steps; clipped within the loss it would have no derivative at the bound,
    and stay there.
    """

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        """Random weights, and CLIP's first temperature, 0.07."""
        self.config = config
        self.image_encoder = _image_encoder(config, rngs)
        self.image_out = nnx.Linear(config.hidden, config.features, rngs=rngs)
        self.text_head = TextHead(config, rngs=rngs)
        first = -math.log(_FIRST_TEMPERATURE - 1.0 / LARGEST_SCALE)
        self.log_scale = nnx.Param(jnp.full((1,), first, jnp.float32))

    @property
    def scale(self) -> Float[Array, ""]:
        """What the cosines are multiplied by."""
        return 1.0 / (1.0 / LARGEST_SCALE + jnp.exp(-self.log_scale[...][0]))

    def image(
        self, x: Float[Array, " b *seen"], timesteps: Float[Array, " b"]
    ) -> Float[Array, "b k"]:
        """Unit vectors of pictures, noisy or clean; timesteps on DDPM's scale of 0 to 1000.

        Of a network on frozen features x are these, in standard units.
        """
        hidden = self.image_encoder(x, timesteps)
        return _unit(self.image_out(jax.nn.silu(hidden)))

    def text(self, text: TextEmbedding) -> Float[Array, "n k"]:
        """Unit vectors of captions in standard units."""
        return _unit(self.text_head(text))


def _image_encoder(config: ClipConfig, rngs: nnx.Rngs) -> ImageEncoder | FeatureEncoder:
    if config.network is None:
        assert config.image_width is not None  # `from_entries` and the training see to it
        return FeatureEncoder(config.image_width, config.hidden, rngs=rngs)
    return ImageEncoder(
        config.network, config.patch, config.event_shape[:2], config.hidden, rngs=rngs
    )


def _unit(x: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Divided by the length; the maximum is of the square, so that zeros have a derivative."""
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-12))
