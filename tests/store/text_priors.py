"""Small priors of captions, of random weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from smcdiff import load_text_encoder, priors, schedules, shapes
from smcdiff.networks.unet import PatchedUNet
from smcdiff.networks.unet_condition import UNet2DCondition
from smcdiff.store._captions import CaptionReader
from smcdiff.store._text_denoiser import TextDenoiser
from smcdiff.text import EncodedCaptions
from smcdiff.training import TextTrainConfig
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
