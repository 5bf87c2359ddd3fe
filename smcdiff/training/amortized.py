"""Amortisation: training a conditional network on pairs (x_0, y) that a NumPyro model draws.

The loss is denoising score matching with the observation beside the noisy event,
``E |f(alpha x_0 + sigma eps, y, t) - target|^2`` (Batzolis et al. 2021, theorem 1): its minimiser
gives the score of p(x_t given y).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from smcdiff.base._progress import Progress
from smcdiff.diffusion import schedules
from smcdiff.errors import InputError
from smcdiff.networks._conditional import ConditionalUNet, observation_channels
from smcdiff.networks.unet import UNet2DConfig
from smcdiff.priors import DenoisingError
from smcdiff.store._entries import error_entry
from smcdiff.store._network_functions import ConditionalNetwork
from smcdiff.store.amortized import save_conditional
from smcdiff.training._cards import History, error_table, model_card
from smcdiff.training._folder import CHECKPOINT, training_folder
from smcdiff.training._loop import Loss, minimise
from smcdiff.training._noise import Noise, denoising_loss, held_out_errors
from smcdiff.training._simulator import Pairs, Simulator, own_stream
from smcdiff.training._statistics import Statistics
from smcdiff.training.config import TrainConfig


def train_amortized(
    model: Callable,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    data: str | Path | None = None,
    command: str = "",
    progress_bar: bool | Progress = True,
) -> Path:
    """Trains a conditional network on pairs (x_0, y).

    Args:
        model: a NumPyro model, callable without arguments, with one diffusion site on images and
            one other site, which is simulated.
        output: folder of the network: config.json, model.safetensors, card.md.
        config: what to train.
        data: images to take x_0 from (see `smcdiff.training._data.load_images`); None draws them
            from the model's prior, once.
        command: for the card.
        progress_bar: show progress; or a callable ``progress(t, num_steps, info)``, called after
            every step, which may raise to end the run there.

    Returns:
        The folder.

    Raises:
        InputError: a model, data or options that cannot be used; a folder that is taken.
    """
    config = TrainConfig() if config is None else config
    config.refuse("an amortised network", "labels", "label_dropout", "init", "sample_every")
    simulator = _simulator_of_images(model)
    images = None if data is None else simulator.images(data, config)
    with training_folder(output) as folder:
        events = simulator.draws(config) if images is None else images
        measured = _Measured.of(simulator, events, config)
        learned, seconds = _learn(measured, folder, config, progress_bar)
        history = [{"command": command, "seconds": seconds}]
        _write(folder, learned, config, _errors(measured.pairs, learned, config), history)
    return folder


def _simulator_of_images(model: Callable) -> Simulator:
    """Reads a model of images."""
    simulator = Simulator.of(model)
    shape = simulator.prior.event_shape
    if len(shape) != 3:
        raise InputError(
            f"site '{simulator.site}' has events of shape {shape}; the conditional network takes"
            " images (h, w, c)"
        )
    return simulator


class _Measured(NamedTuple):
    """The pairs, and what is known of them before the training.

    Attributes:
        pairs: what the network learns from.
        noise: the noise levels that suit the events.
        variance: the events' largest variance in any direction.
        shape: shape of an observation.
        mean: of the observations, over all entries.
        std: their standard deviation.
    """

    pairs: Pairs
    noise: Noise
    variance: float
    shape: tuple[int, ...]
    mean: float
    std: float

    @classmethod
    def of(cls, simulator: Simulator, events: np.ndarray, config: TrainConfig) -> _Measured:
        """Simulates some observations to see their shape and scale.

        Raises:
            InputError: events or observations that are all the same.
        """
        statistics = Statistics.of(f"site '{simulator.site}'", events)
        y = simulator.some_observations(events, config)
        return cls(
            Pairs.of(simulator, events, config), Noise.of(statistics), statistics.variance,
            y.shape[1:], float(y.mean()), float(y.std()),
        )  # fmt: skip


def _learn(
    measured: _Measured, folder: Path, config: TrainConfig, progress_bar: bool | Progress
) -> tuple[ConditionalNetwork, float]:
    """The network with its averaged weights, and the wall time in seconds."""
    pairs, noise = measured.pairs, measured.noise
    shape = pairs.simulator.prior.event_shape
    network = _with_observation(config, shape, measured.shape)

    def make():
        rngs = nnx.Rngs(config.seed)
        return ConditionalUNet(network, config.patch, shape, measured.shape, rngs=rngs)

    graph, params = nnx.split(nnx.jit(make)())
    error = denoising_loss(graph, noise, config)

    def value(params, clean, key):
        key_y, key = jax.random.split(key)
        y = jax.vmap(pairs.simulator)(jax.random.split(key_y, len(clean)), clean)
        return error(params, key, clean, (y - measured.mean) / measured.std)

    loss = Loss(value, lambda step: pairs.batch(step, config))
    state = minimise(loss, params, config, folder / CHECKPOINT, progress_bar=progress_bar)
    learned = ConditionalNetwork(
        state.ema, measured.mean, measured.std, config.target(), noise.sampled, graph, shape,
        measured.shape, measured.variance,
    )  # fmt: skip
    return learned, float(state.seconds)


def _errors(pairs: Pairs, learned: ConditionalNetwork, config: TrainConfig) -> DenoisingError:
    """The network's errors on pairs that it was not trained on."""
    clean = pairs.unseen()
    keys = jax.random.split(own_stream(config, 2), len(clean))
    y = (jax.jit(jax.vmap(pairs.simulator))(keys, clean) - learned.mean) / learned.std

    def outputs(x, t):
        times = schedules.TIMESTEPS * jnp.full(len(x), t)
        return nnx.merge(learned.graph, learned.state)(x, times, y)

    return held_out_errors(outputs, clean, learned.schedule, learned.prediction)


def _with_observation(
    config: TrainConfig, shape: tuple[int, ...], observation: tuple[int, ...]
) -> UNet2DConfig:
    """The U-Net's configuration with the observation's channels."""
    network = config.network(shape)
    more = observation_channels(shape, observation) * config.patch**2
    return dataclasses.replace(network, in_channels=network.in_channels + more)


def _write(
    folder: Path,
    learned: ConditionalNetwork,
    config: TrainConfig,
    errors: DenoisingError,
    history: History,
) -> None:
    """Writes the folder of the network."""
    size = sum(leaf.size for leaf in jax.tree.leaves(learned.state))
    network = (
        f"Conditional network of {size:,} parameters for observations of shape"
        f" {learned.observation_shape}, {config.prediction}-prediction."
    )
    card = model_card(
        folder.name, config, "pairs of an event and its observation, simulated by the model",
        network, history, error_table(errors),
    )  # fmt: skip
    about = {
        "description": config.description,
        "licence": config.licence,
        "denoising_error": error_entry(errors),
        "history": history,
    }
    save_conditional(learned, folder, card, about)
