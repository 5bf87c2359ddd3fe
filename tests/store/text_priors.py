"""Small priors of captions, upsamplers and towers, of random weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from smcdiff import load_text_encoder, priors, schedules, shapes
from smcdiff.networks._clip import ClipNetwork
from smcdiff.networks._upsampling import UpsamplingUNet
from smcdiff.networks.unet import PatchedUNet
from smcdiff.networks.unet_condition import UNet2DCondition
from smcdiff.store._captions import CaptionReader
from smcdiff.store._text_denoiser import TextDenoiser
from smcdiff.store._upsampling_denoiser import UpsamplingDenoiser
from smcdiff.store.clip import Clip
from smcdiff.text import EncodedCaptions
from smcdiff.training import ClipTrainConfig, TextTrainConfig, UpsamplerTrainConfig
from tests.text.folders import REFERENCES

SHAPE = (4, 4, 3)
BERT = str(REFERENCES / "bert")


@functools.cache
def encoded():
    """Some captions of the grammar."""
    captions = shapes.captions()[::200]
    return EncodedCaptions.encode(load_text_encoder(BERT), captions, progress_bar=False)


@functools.cache
def text_denoiser():
    """A network of random weights, which reads captions of the grammar."""
    reader = CaptionReader.of(encoded(), encoded().captions, BERT, "shapes")
    config = TextTrainConfig(channels=(16,), patch=1, text_channels=8, heads=2)
    width = reader.states_mean.shape[0]
    network = config.text_network(SHAPE, width, width)
    make = nnx.jit(lambda: PatchedUNet(UNet2DCondition(network, rngs=nnx.Rngs(0)), 1))
    denoiser = TextDenoiser.wrap(make(), reader)
    noise = np.random.default_rng(0)
    # The last layers begin near zero, where captions have hardly an influence.
    state = jax.tree.map(
        lambda a: a + jnp.asarray(0.2 * noise.normal(size=a.shape), a.dtype), denoiser.state
    )
    return dataclasses.replace(denoiser, state=state)


def text_prior():
    """A prior around it."""
    return priors.DiffusionPrior(
        text_denoiser(), schedules.Cosine(t_max=0.99), SHAPE, priors.VPrediction(), num_steps=5
    )


@functools.cache
def towers(schedule=None):
    """Of random weights that float16 holds, so that a folder returns them."""
    return _towers(schedule, None)


def frozen_towers(pictures):
    """The same on frozen features."""
    return _towers(None, pictures)


def _towers(schedule, pictures):
    reader = CaptionReader.of(encoded(), encoded().captions, BERT, "shapes")
    config = ClipTrainConfig(channels=(16,), patch=1, features=8, hidden=16, heads=2)
    widths = (len(reader.arrays()[name]) for name in ("states_mean", "pooled_mean"))
    made = config.towers(SHAPE, *widths, None if pictures is None else len(pictures.mean))
    graph, state = nnx.split(nnx.jit(lambda: ClipNetwork(made, rngs=nnx.Rngs(0)))())
    state = jax.tree.map(lambda a: a.astype(jnp.float16).astype(a.dtype), state)
    return Clip(state, reader, jnp.float32(0.5), schedule, graph, SHAPE, pictures)


@functools.cache
def upsampler():
    """From the pictures of the priors to twice their size, without captions."""
    shape = (2 * SHAPE[0], 2 * SHAPE[1], SHAPE[2])
    config = UpsamplerTrainConfig(channels=(16,), patch=2, text_channels=8, heads=2)
    network = config.upsampling_network(shape, None)
    unet = nnx.jit(lambda: UpsamplingUNet(network, 2, rngs=nnx.Rngs(0)))()
    denoiser = UpsamplingDenoiser.wrap_upsampler(unet, None, SHAPE)
    schedule = schedules.Cosine(t_max=0.99)
    return priors.DiffusionPrior(denoiser, schedule, shape, priors.VPrediction(), probe=False)
