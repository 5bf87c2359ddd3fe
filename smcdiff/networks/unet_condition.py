"""The U-Net of diffusers' ``UNet2DConditionModel``, which attends to the tokens of a caption.

Configuration keys, blocks and parameter names are those of that model, so that `state_dict` and
`load_state_dict` of `smcdiff.networks.unet` read and write its checkpoints. Three things are new:

* a learned **null token**, which every position may look at beside the caption's tokens;
* the **null caption** is a mask that hides every token, and hides the pooled vector with them, so
  that no part of a hidden caption can be seen;
* flags of Imagen's **Efficient U-Net** (Saharia et al. 2022, appendix B): ``resample_first`` puts
  the downsampling before the convolutions of each resolution, so that they run at half of it, and
  the upsampling after those of the ascending half; ``skip_scale`` scales skip connections, by
  1 / sqrt(2) in Imagen; ``layers_per_block`` may be a tuple, with more blocks at low resolutions.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from smcdiff.errors import InputError
from smcdiff.networks._blocks import Resample2D, TimestepEmbedding, UNetEnds
from smcdiff.networks._transformer import TextStage, Tokens
from smcdiff.networks.unet import UNet2DConfig
from smcdiff.text.embedding import TextEmbedding

_ATTENDS = {
    "CrossAttnDownBlock2D": True,
    "DownBlock2D": False,
    "CrossAttnUpBlock2D": True,
    "UpBlock2D": False,
}


@dataclasses.dataclass(frozen=True)
class UNet2DConditionConfig(UNet2DConfig):
    """Configuration, with the names and meanings of diffusers' ``UNet2DConditionModel``.

    As there, ``attention_head_dim`` is the *number of heads* of each transformer, not their size
    (diffusers, issue 2011). The middle block is ``UNetMidBlock2DCrossAttn``.

    Attributes:
        layers_per_block: resnets of each resolution; one number serves all.
        cross_attention_dim: channels of the tokens as the network attends to them.
        encoder_hid_dim: channels of the encoder's states, which a dense layer projects to
            ``cross_attention_dim``; None takes them as they are.
        transformer_layers_per_block: blocks of each transformer; one number serves all resolutions.
        only_cross_attention: attend to the text in the place of the image's own positions too.
        use_linear_projection: around each transformer dense layers instead of 1 x 1 convolutions,
            which are the same but for the shape of their weights.
        class_embed_type: "projection" adds two dense layers of the pooled vector to the time
            embedding; None leaves that vector out.
        projection_class_embeddings_input_dim: entries of the pooled vector.
        time_cond_proj_dim: entries of one more condition, which joins the embedding of time, or
            None: an upsampler's noise level of the low resolution.
        resample_first: Imagen's order, see the module.
        skip_scale: factor of the skip connections.
    """

    layers_per_block: int | tuple[int, ...] = 1
    down_block_types: tuple[str, ...] = ("DownBlock2D", "CrossAttnDownBlock2D")
    up_block_types: tuple[str, ...] = ("CrossAttnUpBlock2D", "UpBlock2D")
    attention_head_dim: int = 4
    cross_attention_dim: int = 64
    encoder_hid_dim: int | None = None
    transformer_layers_per_block: int | tuple[int, ...] = 1
    only_cross_attention: bool | tuple[bool, ...] = False
    use_linear_projection: bool = False
    class_embed_type: str | None = None
    projection_class_embeddings_input_dim: int | None = None
    time_cond_proj_dim: int | None = None
    resample_first: bool = False
    skip_scale: float = 1.0

    def __post_init__(self):
        count = len(self.block_out_channels)
        for name in ("down_block_types", "up_block_types", *_PER_BLOCK):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != count:
                raise InputError(
                    f"UNet2DCondition config: {name} has {len(value)} entries, and there are"
                    f" {count} resolutions"
                )
        if unknown := [k for k in self.down_block_types + self.up_block_types if k not in _ATTENDS]:
            raise InputError(f"UNet2DCondition config: no block '{unknown[0]}'; {list(_ATTENDS)}")
        wrong = [size for size in self.block_out_channels if size % self.attention_head_dim]
        if wrong:
            raise InputError(
                f"UNet2DCondition config: {wrong[0]} channels do not divide into"
                f" {self.attention_head_dim} heads (attention_head_dim)"
            )
        is_projection = self.class_embed_type == "projection"
        if self.class_embed_type not in (None, "projection") or is_projection == (
            self.projection_class_embeddings_input_dim is None
        ):
            raise InputError(
                f"UNet2DCondition config: class_embed_type is {self.class_embed_type}; give"
                " 'projection' and projection_class_embeddings_input_dim, or neither"
            )
        if self.num_class_embeds is not None:
            raise InputError("UNet2DCondition config: num_class_embeds is for UNet2D; leave it out")

    def of_block(self, name: str, index: int) -> int | bool:
        """An entry that may be given once or for each resolution."""
        value = getattr(self, name)
        return value[index] if isinstance(value, tuple) else value


_PER_BLOCK = ("layers_per_block", "transformer_layers_per_block", "only_cross_attention")


class UNet2DCondition(UNetEnds):
    """The U-Net; see the module."""

    def __init__(self, config: UNet2DConditionConfig, *, rngs: nnx.Rngs):
        """Random weights."""
        super().__init__(config, condition=config.time_cond_proj_dim, rngs=rngs)
        channels = config.block_out_channels
        embedding = 4 * channels[0]
        if config.encoder_hid_dim is not None:
            self.encoder_hid_proj = nnx.Linear(
                config.encoder_hid_dim, config.cross_attention_dim, rngs=rngs
            )
        if config.projection_class_embeddings_input_dim is not None:
            self.class_embedding = TimestepEmbedding(
                config.projection_class_embeddings_input_dim, embedding, rngs=rngs
            )
        null = jax.random.normal(rngs.params(), (config.cross_attention_dim,))
        self.null_token = nnx.Param(null)
        self.down_blocks, skips = _down_blocks(config, embedding, rngs)
        last = len(channels) - 1
        self.mid_block = TextStage(
            [channels[-1]] * 2, channels[-1], embedding, config,
            attention=int(config.add_attention),
            layers=config.of_block("transformer_layers_per_block", last),
            only_cross=False, resample=None, rngs=rngs,
        )  # fmt: skip
        self.up_blocks = _up_blocks(config, embedding, skips, rngs)
        self.make_output(rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        timesteps: Float[Array, " b"],
        text: TextEmbedding,
        timestep_cond: Float[Array, "b k"] | None = None,
    ) -> Float[Array, "b h w o"]:
        """The network's output.

        Args:
            x: (b, h, w, in_channels).
            timesteps: (b,), on DDPM's scale of 0 to 1000.
            text: the captions, a batch of b. What their mask hides has no influence; of a caption
                that is hidden whole the pooled vector has none either.
            timestep_cond: (b, time_cond_proj_dim); given if and only if that is set.

        Returns:
            (b, h, w, out_channels).
        """
        tokens, embedding = self._tokens(text), self._embedding(timesteps, text, timestep_cond)
        x = self.conv_in(x)
        outer, skips = x, []
        if not self.config.resample_first:
            skips.append(x)
        for stage in self.down_blocks:
            if self.config.resample_first:
                x = stage.downsamplers[0](x)
                skips.append(x)
            for index in range(len(stage.resnets)):
                x = stage.attend(index, x, embedding, tokens)
                skips.append(x)
            if not self.config.resample_first and hasattr(stage, "downsamplers"):
                x = stage.downsamplers[0](x)
                skips.append(x)
        for index in range(2):
            x = self.mid_block.attend(index, x, embedding, tokens)
        scale = self.config.skip_scale
        for stage in self.up_blocks:
            for index in range(len(stage.resnets)):
                x = jnp.concatenate([x, scale * skips.pop()], axis=-1)
                x = stage.attend(index, x, embedding, tokens)
            if hasattr(stage, "upsamplers"):
                x = stage.upsamplers[0](x)
        if self.config.resample_first:
            x = x + scale * outer  # no convolution but the first and the last saw this resolution
        return self.output(x)

    def _tokens(self, text: TextEmbedding) -> Tokens:
        """The null token, which is never hidden, and those of the captions."""
        states, mask = text.states, text.mask
        if hasattr(self, "encoder_hid_proj"):
            states = self.encoder_hid_proj(states)
        null = jnp.broadcast_to(self.null_token[...], (len(states), 1, states.shape[-1]))
        seen = jnp.ones((len(states), 1), bool)
        return Tokens(
            jnp.concatenate([null, states], axis=1), jnp.concatenate([seen, mask], axis=1)
        )

    def _embedding(
        self, timesteps: Array, text: TextEmbedding, condition: Array | None
    ) -> Float[Array, "b e"]:
        """Of the time, of the condition beside it, and of the captions' pooled vectors."""
        embedding = self.embed(timesteps, condition)
        if hasattr(self, "class_embedding"):
            is_there = jnp.any(text.mask, axis=-1, keepdims=True)
            embedding = embedding + self.class_embedding(jnp.where(is_there, text.pooled, 0.0))
        return embedding


def _down_blocks(
    config: UNet2DConditionConfig, embedding: int, rngs: nnx.Rngs
) -> tuple[nnx.List, list[int]]:
    """The descending blocks, and the channels of the skip connections in their order."""
    channels, first = config.block_out_channels, config.resample_first
    previous, blocks, skips = channels[0], [], [] if first else [channels[0]]
    for index, (size, kind) in enumerate(zip(channels, config.down_block_types, strict=True)):
        depth = int(config.of_block("layers_per_block", index))
        resample = "down" if not first and index < len(channels) - 1 else None
        stage = TextStage(
            [previous] + [size] * (depth - 1), size, embedding, config,
            attention=depth * _ATTENDS[kind],
            layers=config.of_block("transformer_layers_per_block", index),
            only_cross=config.of_block("only_cross_attention", index),
            resample=resample, rngs=rngs,
        )  # fmt: skip
        if first:
            stage.downsamplers = nnx.List([Resample2D(previous, up=False, rngs=rngs)])
        blocks.append(stage)
        skips += [previous] * first + [size] * (depth + (resample is not None))
        previous = size
    return nnx.List(blocks), skips


def _up_blocks(
    config: UNet2DConditionConfig, embedding: int, skips: list[int], rngs: nnx.Rngs
) -> nnx.List:
    """The ascending blocks, which take the skip connections from the last to the first."""
    channels, last = config.block_out_channels, len(config.block_out_channels) - 1
    previous, blocks, skips = channels[-1], [], list(skips)
    for place, kind in enumerate(config.up_block_types):
        index = last - place
        size, depth = channels[index], int(config.of_block("layers_per_block", index)) + 1
        inputs = [previous] + [size] * (depth - 1)
        blocks.append(
            TextStage(
                [own + skips.pop() for own in inputs], size, embedding, config,
                attention=depth * _ATTENDS[kind],
                layers=config.of_block("transformer_layers_per_block", index),
                only_cross=config.of_block("only_cross_attention", index),
                resample="up" if config.resample_first or index else None, rngs=rngs,
            )
        )  # fmt: skip
        previous = size
    return nnx.List(blocks)
