"""Small priors to write and read."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

from smcdiff import Module, priors, schedules, static
from smcdiff.networks._conditional import ConditionalUNet
from smcdiff.networks._contrast import ContrastConfig, ContrastNetwork
from smcdiff.networks.unet import PatchedUNet, UNet2D
from smcdiff.store._network_functions import ConditionalNetwork, NetworkDenoiser, TwistNetwork
from smcdiff.training import TrainConfig

SHAPE = (4, 4, 1)
ERROR = priors.DenoisingError(jnp.array([-3.7, 0.0, 2.0]), jnp.array([0.7, 0.1, 0.033]))


@functools.cache
def unet(num_classes=0):
    """A U-Net of random weights as a denoiser."""
    config = TrainConfig(channels=(16,), patch=1).network(SHAPE, num_classes)
    network = nnx.jit(lambda: PatchedUNet(UNet2D(config, rngs=nnx.Rngs(3)), 1))()
    return NetworkDenoiser.wrap(network, num_classes)


@functools.cache
def conditional_network():
    """An amortised network of random weights, for observations of three numbers."""
    config = TrainConfig(channels=(16,), patch=1).network(SHAPE)
    config = dataclasses.replace(config, in_channels=2)
    network = nnx.jit(lambda: ConditionalUNet(config, 1, SHAPE, (3,), rngs=nnx.Rngs(0)))()
    graph, state = nnx.split(network)
    return ConditionalNetwork(
        state, 0.1, 2.0, priors.X0Prediction(), schedules.Cosine(), graph, SHAPE, (3,)
    )


@functools.cache
def twist_network(event_shape, observation_shape, factor=1.0):
    """A twist that has learned nothing: random weights, times a factor."""
    image = len(event_shape) == 3
    network = TrainConfig(channels=(16,), patch=1).network(event_shape) if image else None
    config = ContrastConfig(event_shape, observation_shape, width=16, network=network)
    graph, state = nnx.split(nnx.jit(lambda: ContrastNetwork(config, rngs=nnx.Rngs(0)))())
    state = jax.tree.map(lambda a: factor * a, state)
    units = (f(shape) for shape in (event_shape, observation_shape) for f in (jnp.zeros, jnp.ones))
    events = jax.random.normal(jax.random.key(1), (64, *event_shape))
    ends = jnp.array([-8.0, 8.0])
    return TwistNetwork(state, events, *units, ends, graph, observation_shape, config.bound)


def unet_prior(num_classes=0, schedule=None, prediction=None):
    """A prior around `unet`."""
    return priors.DiffusionPrior(
        unet(num_classes),
        schedules.Cosine(t_max=0.99) if schedule is None else schedule,
        SHAPE,
        priors.VPrediction() if prediction is None else prediction,
        data_variance=1.7, denoising_error=ERROR, num_steps=7,
    )  # fmt: skip


class Shrink(Module):
    """A denoiser of somebody else's, with an array, a number and a name."""

    gain: jax.Array
    power: float
    name: str = static(default="shrink")

    def __call__(self, x, t):
        return self.gain * x * t**self.power


class Perceptron(eqx.Module):
    """One of equinox, with an activation function and short floats in it."""

    first: eqx.nn.Linear
    last: jax.Array
    activation: object

    def __init__(self, width, seed):
        key = jax.random.key(seed)
        self.first = eqx.nn.Linear(5, width, key=key)
        self.last = jax.random.normal(key, (4, width)).astype(jnp.bfloat16)
        self.activation = jax.nn.silu

    def __call__(self, x, t):
        hidden = self.activation(self.first(jnp.concatenate([x, t[None]])))
        return self.last.astype(x.dtype) @ hidden


def linear(weights, x, t):
    return weights["w"] @ x + weights["b"] * t


def own_prior(denoiser, shape=(4,), threshold=None):
    """A prior around a denoiser that is none: what is stored does not depend on it."""
    return priors.DiffusionPrior(
        denoiser, schedules.LinearBeta(), shape, priors.EpsPrediction(),
        threshold=threshold, probe=False,
    )  # fmt: skip
