"""A U-Net that sees a low resolution, and how much noise that has, beside the noisy image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from smcdiff.diffusion.schedules import TIMESTEPS
from smcdiff.networks._blocks import timestep_embedding
from smcdiff.networks.unet import fold, unfold
from smcdiff.networks.unet_condition import UNet2DCondition, UNet2DConditionConfig
from smcdiff.text.embedding import TextEmbedding


class UpsamplingUNet(nnx.Module):
    """The U-Net with the enlarged low resolution as further channels (Ho et al. 2022).

    The noise level of the low resolution is a condition beside the time, with an embedding and a
    dense layer of its own (diffusers' ``cond_proj``).

    Attributes:
        unet: whose ``in_channels`` count both images'.
        patch: pixels folded into channels, each way.
    """

    def __init__(self, config: UNet2DConditionConfig, patch: int, *, rngs: nnx.Rngs):
        """Random weights."""
        self.unet = UNet2DCondition(config, rngs=rngs)
        self.patch = patch

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        timesteps: Float[Array, " b"],
        low: Float[Array, "b h_low w_low c"],
        log_snr: Float[Array, " b"],
        text: TextEmbedding,
    ) -> Float[Array, "b h w o"]:
        """The network's output.

        Args:
            x: noisy images of the high resolution.
            timesteps: (b,), of their noise, on DDPM's scale of 0 to 1000.
            low: the low resolution, noised, at the variance-preserving scale.
            log_snr: (b,) of that noise; infinite where there is none.
            text: the captions, a batch of b; of no tokens where there are none.
        """
        both = jnp.concatenate([x, enlarged(low, x.shape[1], x.shape[2])], axis=-1)
        config = self.unet.config
        assert config.time_cond_proj_dim is not None
        level = timestep_embedding(
            TIMESTEPS * noise_share(log_snr), config.time_cond_proj_dim,
            flip_sin_to_cos=config.flip_sin_to_cos, freq_shift=config.freq_shift,
        )  # fmt: skip
        return unfold(self.unet(fold(both, self.patch), timesteps, text, level), self.patch)


def enlarged(
    images: Float[Array, "b h_low w_low c"], height: int, width: int
) -> Float[Array, "b h w c"]:
    """Bilinear between the centres of pixels, whose corners are those of the images."""
    shape = (images.shape[0], height, width, images.shape[3])
    return jax.image.resize(images, shape, "linear")


def noise_share(log_snr: Float[Array, " b"]) -> Float[Array, " b"]:
    """The cosine schedule's time of a log-SNR: from 0, no noise, to 1, nothing else."""
    return 2.0 / jnp.pi * jnp.arctan(jnp.exp(-0.5 * log_snr))
