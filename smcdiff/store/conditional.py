"""Loading learned conditional models: noise-conditional classifiers and amortised networks.

Each is a folder with ``config.json``, ``model.safetensors`` and ``card.md``, as a prior's is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from smcdiff.base.module import Module, static
from smcdiff.diffusion import schedules
from smcdiff.errors import InputError
from smcdiff.priors import DiffusionPrior
from smcdiff.priors.learned import Prediction
from smcdiff.store.zoo import (
    PREDICTIONS,
    entries_of,
    read_config,
    read_schedule,
    read_shape,
    read_weights,
)  # fmt: skip


class NetworkClassifier(Module):
    """A Flax network as a noise-conditional classifier; its weights are pytree leaves.

    Attributes:
        state: the parameters.
        schedule: the noise schedule that it was trained on.
        graph: the network without its parameters.
    """

    state: Any
    schedule: schedules.Schedule
    graph: Any = static()

    def __call__(self, x: Float[Array, "h w c"], t: Float[Array, ""]) -> Float[Array, " k"]:
        """Logits of the classes of x_t = x; t in the schedule's time."""
        from flax import nnx

        network = nnx.merge(self.graph, self.state)
        return network(x[None], schedules.TIMESTEPS * jnp.asarray(t, x.dtype)[None])[0]

    def given(self, label: Int[Array, ""] | int) -> ClassLogProb:
        """What `smcdiff.proposals.ClassifierGuidance` takes."""
        return ClassLogProb(self, jnp.asarray(label, jnp.int32))


class ClassLogProb(Module):
    """Log probability of one class under a noise-conditional classifier.

    Attributes:
        classifier: the classifier.
        label: the class, a scalar.
    """

    classifier: NetworkClassifier
    label: Int[Array, ""]

    @property
    def schedule(self) -> schedules.Schedule:
        """The noise schedule of the classifier, which the prior must share."""
        return self.classifier.schedule

    def __call__(self, x: Float[Array, "h w c"], t: Float[Array, ""]) -> Float[Array, ""]:
        """Log p(class given x_t = x)."""
        return jax.nn.log_softmax(self.classifier(x, t))[self.label]


class ObservationDenoiser(Module):
    """A conditional Flax network as the denoiser of a `DiffusionPrior`.

    Attributes:
        state: the parameters.
        observation: y, standardised.
        graph: the network without its parameters.
    """

    state: Any
    observation: Float[Array, "*observation"]
    graph: Any = static()

    def __call__(self, x: Float[Array, "h w c"], t: Float[Array, ""]) -> Float[Array, "h w c"]:
        """The raw output for one image; t in the schedule's time."""
        from flax import nnx

        network = nnx.merge(self.graph, self.state)
        times = schedules.TIMESTEPS * jnp.asarray(t, x.dtype)[None]
        return network(x[None], times, self.observation[None])[0]


class ConditionalNetwork(Module):
    """A network trained on pairs (x_0, y); what `smcdiff.proposals.Amortized` takes.

    Attributes:
        state: the parameters.
        mean: of the observations of the training, over all entries.
        std: their standard deviation.
        prediction: what the output means.
        schedule: noise schedule.
        graph: the network without its parameters.
        event_shape: shape of x_0.
        observation_shape: shape of y.
        data_variance: as in `DiffusionPrior`.
    """

    state: Any
    mean: Float[Array, ""] | float
    std: Float[Array, ""] | float
    prediction: Prediction
    schedule: schedules.Schedule
    graph: Any = static()
    event_shape: tuple[int, ...] = static()
    observation_shape: tuple[int, ...] = static()
    data_variance: float = static(default=1.0)

    def given(self, y: Float[Array, "*observation"]) -> DiffusionPrior:
        """The diffusion prior given y: what the network takes for the posterior.

        Raises:
            InputError: y has another shape than the observations of the training.
        """
        y = jnp.asarray(y)
        if y.shape != self.observation_shape:
            raise InputError(
                f"the observation has shape {y.shape}, but the network was trained for"
                f" {self.observation_shape}: an amortised network serves one size; train another"
                " with `smcdiff train amortized`, or use a proposal that reads the likelihood"
            )
        denoiser = ObservationDenoiser(self.state, (y - self.mean) / self.std, self.graph)
        return DiffusionPrior(
            denoiser, self.schedule, self.event_shape, self.prediction,
            data_variance=self.data_variance,
        )  # fmt: skip


def load_classifier(path: str | os.PathLike) -> NetworkClassifier:
    """Loads a classifier that `smcdiff train classifier` wrote.

    Args:
        path: its folder.

    Raises:
        InputError: no such folder, or one that is incomplete, damaged or of another kind.
    """
    from flax import nnx

    from smcdiff.networks.classifier import NoisyClassifier
    from smcdiff.networks.unet import UNet2DConfig, load_state_dict

    folder = Path(path)
    config = read_config(folder)
    if config.get("kind") != "classifier":
        raise InputError(f"{folder} is no classifier; `smcdiff train classifier` makes one")
    with entries_of(folder):
        network = UNet2DConfig.from_dict(config["network"])
        sizes = config["patch"], config["num_classes"]
        module = nnx.eval_shape(lambda: NoisyClassifier(network, *sizes, rngs=nnx.Rngs(0)))
        load_state_dict(module, read_weights(folder, config))
        graph, state = nnx.split(module)
        return NetworkClassifier(state, read_schedule(config), graph)


def load_conditional(path: str | os.PathLike) -> ConditionalNetwork:
    """Loads a network that `smcdiff train amortized` wrote.

    Args:
        path: its folder.

    Raises:
        InputError: no such folder, or one that is incomplete, damaged or of another kind.
    """
    from flax import nnx

    from smcdiff.networks.conditional import ConditionalUNet
    from smcdiff.networks.unet import UNet2DConfig, load_state_dict

    folder = Path(path)
    config = read_config(folder)
    if config.get("kind") != "conditional":
        raise InputError(f"{folder} is no amortised network; `smcdiff train amortized` makes one")
    with entries_of(folder):
        shapes = read_shape(config["event_shape"]), read_shape(config["observation_shape"])
        network = UNet2DConfig.from_dict(config["network"])
        module = nnx.eval_shape(
            lambda: ConditionalUNet(network, config["patch"], *shapes, rngs=nnx.Rngs(0))
        )
        load_state_dict(module, read_weights(folder, config))
        graph, state = nnx.split(module)
        return ConditionalNetwork(
            state, float(config["observation_mean"]), float(config["observation_std"]),
            PREDICTIONS[config["prediction"]](), read_schedule(config), graph, *shapes,
            float(config["data_variance"]),
        )  # fmt: skip
