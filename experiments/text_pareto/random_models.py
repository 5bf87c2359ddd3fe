"""A prior of captions, towers and features, all of random weights, for the smoke size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from smcdiff import load_text_encoder, schedules
from smcdiff.networks._clip import ClipConfig, ClipNetwork
from smcdiff.networks._efficientnet import EfficientNetLite0
from smcdiff.networks._upsampling import UpsamplingUNet
from smcdiff.networks.unet import PatchedUNet, UNet2DConfig
from smcdiff.networks.unet_condition import UNet2DCondition
from smcdiff.priors import DiffusionPrior, VPrediction
from smcdiff.store._captions import CaptionReader
from smcdiff.store._text_denoiser import TextDenoiser
from smcdiff.store._upsampling_denoiser import UpsamplingDenoiser
from smcdiff.store.clip import Clip
from smcdiff.store.image_features import ImageFeatures
from smcdiff.text import EncodedCaptions
from smcdiff.training import TextTrainConfig, UpsamplerTrainConfig

SMALL_ENCODER = Path(__file__).parents[2] / "tests" / "text" / "references" / "bert"


def _shaken(denoiser: TextDenoiser, shape: tuple[int, ...]) -> DiffusionPrior:
    """The last layers begin near zero, where captions have hardly an influence."""
    noise = np.random.default_rng(0)
    state = jax.tree.map(
        lambda a: a + jnp.asarray(0.2 * noise.standard_normal(a.shape), a.dtype), denoiser.state
    )
    return DiffusionPrior(
        dataclasses.replace(denoiser, state=state), schedules.Cosine(t_max=0.99), shape,
        VPrediction(), probe=False,
    )  # fmt: skip


def random_upsampler() -> DiffusionPrior:
    """From 16 x 16 to 32 x 32 pixels."""
    small, shape = UpsamplerTrainConfig(channels=(16,), patch=4, heads=2), (32, 32, 3)
    unet = small.upsampling_network(shape, None)
    network = nnx.jit(lambda: UpsamplingUNet(unet, small.patch, rngs=nnx.Rngs(0)))()
    low = small.low_shape(shape)
    return _shaken(UpsamplingDenoiser.wrap_upsampler(network, None, low), shape)


def random_models(captions: tuple[str, ...]) -> tuple[DiffusionPrior, Clip, ImageFeatures]:
    """Of pictures of 16 x 16 pixels; the prior reads these captions."""
    encoded = EncodedCaptions.encode(load_text_encoder(SMALL_ENCODER), captions, progress_bar=False)
    reader = CaptionReader.of(encoded, captions, str(SMALL_ENCODER), "shapes")
    shape, width = (16, 16, 3), reader.states_mean.shape[0]
    small = TextTrainConfig(channels=(16,), patch=2, text_channels=8, heads=2)
    unet = small.text_network(shape, width, width)
    network = nnx.jit(lambda: PatchedUNet(UNet2DCondition(unet, rngs=nnx.Rngs(0)), small.patch))()
    prior = _shaken(TextDenoiser.wrap(network, reader), shape)
    pictures = UNet2DConfig(8, 12, 12, (16,), 1, ("DownBlock2D",), ("UpBlock2D",))
    towers = ClipConfig(shape, pictures, 2, width, width, 16, 8, 8, 2)
    graph, state = nnx.split(nnx.jit(lambda: ClipNetwork(towers, rngs=nnx.Rngs(0)))())
    clip = Clip(state, reader, jnp.ones(()), None, graph, shape)
    graph, state = nnx.split(nnx.jit(lambda: EfficientNetLite0(rngs=nnx.Rngs(0)))())
    return prior, clip, ImageFeatures(state, graph)
