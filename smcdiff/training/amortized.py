"""Amortisation: training a conditional network on pairs (x_0, y) that a NumPyro model draws.

The loss is denoising score matching with the observation beside the noisy event,
``E |f(alpha x_0 + sigma eps, y, t) - target|^2`` (Batzolis et al. 2021, theorem 1): its minimiser
gives the score of p(x_t given y).
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from numpyro import handlers

from smcdiff.base.pixels import to_unit_range
from smcdiff.diffusion import schedules
from smcdiff.errors import InputError, first_line
from smcdiff.networks.conditional import ConditionalUNet, observation_channels
from smcdiff.networks.unet import state_dict
from smcdiff.priors import flow
from smcdiff.priors.base import DiffusionDistribution
from smcdiff.problem import sites
from smcdiff.store.conditional import ConditionalNetwork
from smcdiff.store.zoo import PREDICTIONS
from smcdiff.training.config import TrainConfig
from smcdiff.training.data import batch_indices, check_count, load_images, split
from smcdiff.training.folder import (
    CHECKPOINT,
    error_table,
    largest_variance,
    schedule_entry,
    training_folder,
    write_model,
)  # fmt: skip
from smcdiff.training.loop import Loss, minimise
from smcdiff.training.noise import SAMPLED, TRAINED, held_out_errors, noisy

_POOL = 4096
"""Draws of the prior, made once where there are no images."""


@dataclasses.dataclass(frozen=True)
class Simulator:
    """The observation that a NumPyro model draws for an event.

    Attributes:
        model: the model, callable without arguments.
        site: name of the diffusion site.
        observed: name of the site that is simulated.
        prior: the distribution at the diffusion site.
    """

    model: Callable
    site: str
    observed: str
    prior: DiffusionDistribution

    @classmethod
    def of(cls, model: Callable) -> Simulator:
        """Reads a model.

        Raises:
            InputError: no diffusion site on images, or not exactly one site to simulate.
        """
        try:
            trace = sites.trace(model, (), {})
        except TypeError as error:
            raise InputError(
                f"the model must be callable without arguments, like `def model(y=None)`: {error}"
            ) from error
        except InputError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise InputError(
                f"the model fails when it is called without arguments ({first_line(error)}); run it"
                " under numpyro.handlers.seed to see where"
            ) from error
        found = {n: s for n, s in trace.items() if s["type"] == "sample"}
        diffusion = [n for n, s in found.items() if sites.is_diffusion(s["fn"])]
        others = [n for n, s in found.items() if n not in diffusion and not sites.is_factor(s)]
        if len(diffusion) != 1 or len(others) != 1:
            raise InputError(
                f"the model has diffusion sites {diffusion} and other sites {others}; amortisation"
                " needs one of each, the other being simulated"
            )
        prior = sites.unwrap(found[diffusion[0]]["fn"])
        if len(prior.event_shape) != 3:
            raise InputError(
                f"site '{diffusion[0]}' has events of shape {prior.event_shape}; the conditional"
                " network takes images (h, w, c)"
            )
        return cls(model, diffusion[0], others[0], prior)

    def __call__(self, key: Array, x: Float[Array, "h w c"]) -> Array:
        """One observation of one event."""
        given = handlers.substitute(self.model, {self.site: x})
        trace = handlers.trace(handlers.seed(given, key)).get_trace()
        return jnp.asarray(trace[self.observed]["value"], jnp.result_type(float))


def load_model(spec: str) -> Callable:
    """The function that ``FILE:FUNCTION`` names.

    Raises:
        InputError: no such file or function.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not name or not path.is_file():
        raise InputError(f"--model {spec}: give a Python file and a function, FILE:FUNCTION")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"--model {spec}: {path} is no Python file; give FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"--model {spec}: {path} fails when it is imported ({first_line(error)}); run it with"
            " python to see where"
        ) from error
    if not callable(getattr(module, name, None)):
        raise InputError(f"--model {spec}: {path} has no function '{name}'")
    return getattr(module, name)


def train_amortized(
    model: Callable,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    data: str | Path | None = None,
    command: str = "",
) -> Path:
    """Trains a conditional network on pairs (x_0, y).

    Args:
        model: a NumPyro model, callable without arguments, with one diffusion site on images and
            one other site, which is simulated.
        output: folder of the network: config.json, model.safetensors, card.md.
        config: what to train.
        data: images to take x_0 from (see `smcdiff.training.data.load_images`); None draws them
            from the model's prior, once.
        command: for the card.

    Returns:
        The folder.

    Raises:
        InputError: a model, data or options that cannot be used; a folder that is taken.
    """
    config = TrainConfig() if config is None else config
    config.refuse("an amortised network", "labels", "label_dropout", "init", "sample_every")
    simulator = Simulator.of(model)
    images = None if data is None else _images(simulator, data, config)
    with training_folder(output) as folder:
        events = _draws(simulator, config) if images is None else images
        _train(simulator, events, folder, config, command)
    return folder


def _train(
    simulator: Simulator, events: np.ndarray, folder: Path, config: TrainConfig, command: str
) -> None:
    """`train_amortized`, on events that were checked and in a folder that is there."""
    shape = simulator.prior.event_shape
    simulate = jax.jit(jax.vmap(simulator))
    some = np.sort(np.random.default_rng(0).permutation(len(events))[:2000])
    keys = jax.random.split(_own_stream(config, 0), len(some[:256]))
    pairs = simulate(keys, _clean(events[np.random.default_rng(1).permutation(some)[:256]]))
    mean, std = float(pairs.mean()), float(pairs.std())
    if not std > 0.0:
        raise InputError(f"site '{simulator.observed}' is the same for every event: nothing to do")
    network = _with_observation(config, shape, pairs.shape[1:])

    def make():
        rngs = nnx.Rngs(config.seed)
        return ConditionalUNet(network, config.patch, shape, pairs.shape[1:], rngs=rngs)

    graph, params = nnx.split(nnx.jit(make)())
    prediction = PREDICTIONS[config.prediction]()
    used, held_out = split(len(events), config.batch)

    def batch(step):
        chosen = batch_indices(step, config.batch, len(used), config.seed)
        return _clean(events[used[chosen]])

    def loss(params, clean, key):
        key_y, key = jax.random.split(key)
        y = jax.vmap(simulator)(jax.random.split(key_y, len(clean)), clean)
        x, noise, times = noisy(key, clean, config.level_weighting(), prediction)
        level = schedules.levels(TRAINED, times[:, None, None, None])
        output = nnx.merge(graph, params)(x, schedules.TIMESTEPS * times, (y - mean) / std)
        return jnp.mean((output - prediction.target(clean, noise, level)) ** 2)

    checkpoint = folder / CHECKPOINT
    state = minimise(Loss(loss, batch), params, config, checkpoint)
    fresh = _clean(events[held_out[:256]])
    y = simulate(jax.random.split(_own_stream(config, 2), len(fresh)), fresh)

    def outputs(x, t):
        times = schedules.TIMESTEPS * jnp.full(len(x), t)
        return nnx.merge(graph, state.ema)(x, times, (y - mean) / std)

    errors = held_out_errors(outputs, fresh, prediction)
    learned = ConditionalNetwork(
        state.ema, mean, std, prediction, SAMPLED, graph, shape, pairs.shape[1:],
        largest_variance(np.asarray(_clean(events[some]))),
    )  # fmt: skip
    _write(folder, learned, network, config, errors, float(state.seconds), command)
    checkpoint.unlink()


def _images(simulator: Simulator, data: str | Path, config: TrainConfig) -> np.ndarray:
    """uint8 images of the data, of the prior's shape."""
    images, shape = load_images(data), simulator.prior.event_shape
    if images.shape[1:] != shape:
        raise InputError(
            f"{data}: images of shape {images.shape[1:]}, but site '{simulator.site}' has {shape};"
            " resize them, or take the prior of such images"
        )
    check_count(data, len(images), config.batch)
    return images


def _draws(simulator: Simulator, config: TrainConfig) -> np.ndarray:
    """Float draws of the prior."""
    keys = jax.random.split(_own_stream(config, 1), _POOL // 64)
    draw = jax.jit(lambda prior, key: flow.sample(prior, key, (64,)))
    return np.concatenate([np.asarray(draw(simulator.prior, key)) for key in keys])


def _own_stream(config: TrainConfig, number: int) -> Array:
    """A key that the loop does not use: it folds the step's number into the seed's."""
    return jax.random.fold_in(jax.random.key(config.seed), 2**31 + number)


def _clean(events: np.ndarray) -> Array:
    """Events in the prior's units."""
    return jnp.asarray(to_unit_range(events) if events.dtype == np.uint8 else events)


def _with_observation(config: TrainConfig, shape, observation):
    """The U-Net's configuration with the observation's channels."""
    network = config.network(shape)
    more = observation_channels(shape, observation) * config.patch**2
    return dataclasses.replace(network, in_channels=network.in_channels + more)


def _write(
    folder: Path, learned: ConditionalNetwork, network, config, errors, seconds, command
) -> None:
    arrays = state_dict(nnx.merge(learned.graph, learned.state))
    size = sum(array.size for array in arrays.values())
    card = (
        f"# {folder.name}\n\n{config.description}\n\n"
        f"Conditional network of {size:,} parameters for observations of shape"
        f" {learned.observation_shape}. Licence of the data: {config.licence}\n\n"
        f"Trained on {jax.devices()[0].device_kind}, with\n\n    {command}\n\n"
        f"({seconds / 60:.0f} minutes)\n\n"
        f"{error_table(errors)}"
    )
    description: dict[str, Any] = {
        "kind": "conditional",
        "description": config.description,
        "licence": config.licence,
        "event_shape": list(learned.event_shape),
        "observation_shape": list(learned.observation_shape),
        "observation_mean": learned.mean,
        "observation_std": learned.std,
        "network": dataclasses.asdict(network),
        "patch": config.patch,
        "prediction": config.prediction,
        "schedule": schedule_entry(SAMPLED),
        "data_variance": learned.data_variance,
        "denoising_error": {str(log_snr): error for log_snr, error in errors.items()},
        "history": [{"command": command, "seconds": seconds}],
    }
    write_model(folder, arrays, card, description)
