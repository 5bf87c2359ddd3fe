"""A network that says how much better x_t explains an observation than other x_t do.

x_t and y are encoded apart, and then compared, so that a table of all pairs of a batch costs little
more than its diagonal.
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

from smcdiff.networks._blocks import TimestepEmbedding, timestep_embedding
from smcdiff.networks._classifier import Descent
from smcdiff.networks._conditional import is_aligned, observation_channels
from smcdiff.networks.unet import UNet2DConfig

_NUM_SINUSOIDS = 32


@dataclasses.dataclass(frozen=True)
class ContrastConfig:
    """What a `ContrastNetwork` is made from.

    Attributes:
        event_shape: shape of x_t.
        observation_shape: shape of y; () for a number.
        width: features of both, and of the layers that compare them.
        layers: residual layers of an encoder of vectors.
        bound: of the output, either way, in nat.
        network: for images, the U-Net whose descending blocks encode them.
        patch: for images, pixels folded into channels, each way.
    """

    event_shape: tuple[int, ...]
    observation_shape: tuple[int, ...]
    width: int = 64
    layers: int = 1
    bound: float = 12.0
    network: UNet2DConfig | None = None
    patch: int = 1

    def entries(self) -> dict[str, Any]:
        """As config.json has it; the network and its patch where there is one."""
        entries = dataclasses.asdict(self)
        if self.network is None:
            del entries["network"], entries["patch"]
        return entries

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> ContrastConfig:
        """From a config.json, whose other entries are not read."""
        optional = {"network", "patch"} - set(entries)
        names = {field.name for field in dataclasses.fields(cls)} - optional
        found = {name: entries[name] for name in names}
        if "network" in found:
            found["network"] = UNet2DConfig.from_dict(found["network"])
        found |= {name: tuple(found[name]) for name in ("event_shape", "observation_shape")}
        return cls(**found)


class VectorEncoder(nnx.Module):
    """Dense residual layers on a flat event and the embedding of its time step."""

    def __init__(self, size: int, width: int, layers: int, *, rngs: nnx.Rngs):
        """Entries of an event, features, and residual layers."""
        self.time_embedding = TimestepEmbedding(_NUM_SINUSOIDS, width, rngs=rngs)
        self.linear_in = nnx.Linear(size, width, rngs=rngs)
        self.linears = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(layers)])

    def __call__(
        self, x: Float[Array, " b *event"], timesteps: Float[Array, " b"]
    ) -> Float[Array, "b k"]:
        """Features of events of about unit size; timesteps on a scale of 0 to 1000."""
        sinusoids = timestep_embedding(
            timesteps, _NUM_SINUSOIDS, flip_sin_to_cos=True, freq_shift=0
        )
        hidden = self.linear_in(x.reshape(len(x), -1)) + self.time_embedding(sinusoids)
        for linear in self.linears:
            hidden = hidden + linear(jax.nn.silu(hidden))
        return hidden


class ImageEncoder(Descent):
    """The descending blocks of a U-Net, and a dense layer on all that they leave."""

    def __init__(
        self,
        config: UNet2DConfig,
        patch: int,
        pixels: tuple[int, ...],
        width: int,
        *,
        rngs: nnx.Rngs,
    ):
        """Random weights; height and width of an image, and features."""
        super().__init__(config, patch, rngs=rngs)
        self.pixels = pixels
        channels = config.block_out_channels
        factor = patch * 2 ** (len(channels) - 1)
        left = (pixels[0] // factor) * (pixels[1] // factor)
        self.linear_out = nnx.Linear(left * channels[-1], width, rngs=rngs)

    def __call__(
        self, x: Float[Array, " b *image"], timesteps: Float[Array, " b"]
    ) -> Float[Array, "b k"]:
        """Features of images of about unit size; timesteps on a scale of 0 to 1000."""
        images = x.reshape(len(x), *self.pixels, -1)
        return self.linear_out(self.features(images, timesteps).reshape(len(x), -1))


class ContrastNetwork(nnx.Module):
    """log psi(y; x_t) up to a factor of y, between ``-bound`` and ``bound``."""

    def __init__(self, config: ContrastConfig, *, rngs: nnx.Rngs):
        """Random weights."""
        self.config = config
        self.encoder = _encoder(config, config.event_shape, rngs)
        self.observation_encoder = _encoder(config, config.observation_shape, rngs)
        self.linear_mid = nnx.Linear(config.width, config.width, rngs=rngs)
        self.linear_out = nnx.Linear(config.width, 1, rngs=rngs)

    def encode(
        self, x: Float[Array, " b *event"], timesteps: Float[Array, " b"]
    ) -> Float[Array, "b k"]:
        """Features of noisy events of about unit size."""
        return self.encoder(x, timesteps)

    def encode_observation(self, y: Float[Array, " b *observation"]) -> Float[Array, "b k"]:
        """Features of observations of about unit size."""
        return self.observation_encoder(y, jnp.zeros(len(y)))

    def compare(
        self, events: Float[Array, "b k"], observations: Float[Array, "b k"]
    ) -> Float[Array, " b"]:
        """Log psi from the features of both."""
        hidden = jax.nn.silu(self.linear_mid(jax.nn.silu(events + observations)))
        bound = self.config.bound
        return bound * jnp.tanh(self.linear_out(hidden)[..., 0] / bound)

    def table(
        self, events: Float[Array, "b k"], observations: Float[Array, "c k"]
    ) -> Float[Array, "c b"]:
        """Log psi of all pairs; a row per observation."""
        rows = jnp.repeat(observations, len(events), axis=0)
        columns = jnp.tile(events, (len(observations), 1))
        return self.compare(columns, rows).reshape(len(observations), len(events))


def _encoder(
    config: ContrastConfig, shape: tuple[int, ...], rngs: nnx.Rngs
) -> VectorEncoder | ImageEncoder:
    """An encoder of events or observations: of images where they are, or lie on their pixels."""
    network, image = config.network, config.event_shape
    if network is None or not is_aligned(image, shape):
        return VectorEncoder(math.prod(shape), config.width, config.layers, rngs=rngs)
    depth = observation_channels(image, shape) * config.patch**2
    network = dataclasses.replace(network, in_channels=depth)
    return ImageEncoder(network, config.patch, image[:2], config.width, rngs=rngs)
