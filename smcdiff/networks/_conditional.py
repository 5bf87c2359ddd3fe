"""A U-Net that sees an observation beside the noisy image."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from smcdiff.networks.unet import PatchedUNet, UNet2D, UNet2DConfig


class ConditionalUNet(nnx.Module):
    """The U-Net on an image with the observation as further channels.

    An observation of the image's height and width, (h, w) or (h, w, c), is its own channels; any
    other is mapped to one channel by a dense layer.

    Attributes:
        config: the U-Net's configuration; its ``in_channels`` count the observation's.
    """

    def __init__(
        self,
        config: UNet2DConfig,
        patch: int,
        image: tuple[int, ...],
        observation: tuple[int, ...],
        *,
        rngs: nnx.Rngs,
    ):
        """Random weights; shapes of one image and of one observation."""
        self.image, self.observation = image, observation
        self.net = PatchedUNet(UNet2D(config, rngs=rngs), patch)
        if not is_aligned(image, observation):
            size = math.prod(observation)
            self.lift = nnx.Linear(size, image[0] * image[1], rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        timesteps: Float[Array, " b"],
        y: Float[Array, " b *observation"],
    ) -> Float[Array, "b h w c"]:
        """The output for noisy images and their observations, of mean 0 and variance 1."""
        if hasattr(self, "lift"):
            y = self.lift(y.reshape(len(y), -1))
        channels = y.reshape(*x.shape[:3], -1)
        return self.net(jnp.concatenate([x, channels], axis=-1), timesteps)


def is_aligned(image: tuple[int, ...], observation: tuple[int, ...]) -> bool:
    """Whether an observation lies on the image's pixels."""
    return observation[:2] == image[:2] and len(observation) in (2, 3)


def observation_channels(image: tuple[int, ...], observation: tuple[int, ...]) -> int:
    """Channels that an observation takes."""
    if not is_aligned(image, observation):
        return 1
    return observation[2] if len(observation) == 3 else 1
