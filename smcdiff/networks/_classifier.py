"""The descending half of the U-Net, and a classifier of noisy images that pools it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from smcdiff.networks._blocks import Stage, Stem
from smcdiff.networks.unet import UNet2DConfig, fold


class Descent(Stem):
    """The descending blocks of the U-Net of a configuration."""

    def __init__(self, config: UNet2DConfig, patch: int, *, rngs: nnx.Rngs):
        """Random weights; ``patch`` x ``patch`` pixels are folded into channels first."""
        super().__init__(config, rngs=rngs)
        self.patch = patch
        channels, depth = config.block_out_channels, config.layers_per_block
        embedding = 4 * channels[0]
        previous, down = channels[0], []
        for index, size in enumerate(channels):
            sizes = [previous] + [size] * (depth - 1)
            resample = "down" if index < len(channels) - 1 else None
            down.append(
                Stage(sizes, size, embedding, config, attention=0, resample=resample, rngs=rngs)
            )
            previous = size
        self.down_blocks = nnx.List(down)
        self.norm_out = nnx.GroupNorm(
            previous, config.norm_num_groups, epsilon=config.norm_eps, rngs=rngs
        )

    def features(
        self, x: Float[Array, "b h w c"], timesteps: Float[Array, " b"]
    ) -> Float[Array, "b i j k"]:
        """What the last block says of noisy images; timesteps on DDPM's scale of 0 to 1000."""
        embedding = self.embed(timesteps)
        x = self.conv_in(fold(x, self.patch))
        for stage in self.down_blocks:
            for index in range(len(stage.resnets)):
                x = stage.layer(index, x, embedding)
            if hasattr(stage, "downsamplers"):
                x = stage.downsamplers[0](x)
        return jax.nn.silu(self.norm_out(x))


class NoisyClassifier(Descent):
    """Logits of the classes of x_t, at every noise level."""

    def __init__(self, config: UNet2DConfig, patch: int, num_classes: int, *, rngs: nnx.Rngs):
        """Random weights."""
        super().__init__(config, patch, rngs=rngs)
        self.linear_out = nnx.Linear(config.block_out_channels[-1], num_classes, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], timesteps: Float[Array, " b"]
    ) -> Float[Array, "b k"]:
        """Logits of noisy images; timesteps on DDPM's scale of 0 to 1000."""
        return self.linear_out(jnp.mean(self.features(x, timesteps), axis=(1, 2)))
