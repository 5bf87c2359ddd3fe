"""Training a prior: denoising score matching, and the folder of what was learned.

The loss is the mean squared error of the network's target (v by default) at stratified times,
``E |f(alpha x_0 + sigma eps, t) - target|^2`` (Ho et al. 2020; Salimans and Ho 2022).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from smcdiff.base._progress import Progress
from smcdiff.diffusion.schedules import Cosine
from smcdiff.errors import InputError
from smcdiff.networks.unet import PatchedUNet, UNet2D, load_state_dict
from smcdiff.priors import DiffusionPrior, Prediction
from smcdiff.results import plots
from smcdiff.store._folder import PRIOR, read_config, read_weights
from smcdiff.store._network_functions import NetworkDenoiser
from smcdiff.store._text_denoiser import without_captions
from smcdiff.store.prior import save_prior
from smcdiff.store.shipped import model_folder
from smcdiff.training._cards import error_table, model_card
from smcdiff.training._data import (
    LabelledImages,
    check_count,
    load_images,
    load_labels,
    split,
)  # fmt: skip
from smcdiff.training._folder import CHECKPOINT, SAMPLES, training_folder
from smcdiff.training._loop import Loss, minimise
from smcdiff.training._noise import Noise, denoising_loss, held_out_errors
from smcdiff.training._statistics import Statistics, clean_events
from smcdiff.training.config import TrainConfig

Denoiser = TypeVar("Denoiser")


def train(
    data: str | Path,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    progress_bar: bool | Progress = True,
) -> Path:
    """Trains a prior on images and writes its model folder.

    Runs that were killed resume from the last checkpoint in ``output``, to the same weights.

    Args:
        data: images; see `smcdiff.training._data.load_images`.
        output: folder of the prior: config.json, model.safetensors, card.md, samples.png.
        config: what to train.
        progress_bar: show progress; or a callable ``progress(t, num_steps, info)``, called after
            every step, which may raise to end the run there.

    Returns:
        The folder.

    Raises:
        InputError: data or options that cannot be used; a folder that holds a finished prior.
    """
    config = TrainConfig() if config is None else config
    images = load_images(data)
    check_count(data, len(images), config.batch_size)
    labels = load_labels(data, len(images)) if config.labels else None
    statistics = Statistics.of(str(data), images)
    num_classes = 0 if labels is None else int(labels.max()) + 1
    used, held_out = split(len(images), config.batch_size)
    training = LabelledImages(images, labels, num_classes, used)
    with training_folder(output) as folder:
        learned = _learn(training, folder, config, Noise.of(statistics), progress_bar)
        clean = jnp.asarray(clean_events(images[held_out[:256]]))
        _write(data, folder, config, learned, images, clean, statistics)
    return folder


@dataclasses.dataclass(frozen=True)
class Learned(Generic[Denoiser]):
    """What a run ends with.

    Attributes:
        denoiser: the network with its averaged weights.
        noise: the levels that it was trained at.
        seconds: wall time.
    """

    denoiser: Denoiser
    noise: Noise
    seconds: float


def _learn(
    training: LabelledImages,
    folder: Path,
    config: TrainConfig,
    noise: Noise,
    progress_bar: bool | Progress,
) -> Learned[NetworkDenoiser]:
    """Runs the optimiser, with a checkpoint and a picture of draws in the folder."""
    shape, num_classes = training.images.shape[1:], training.num_classes
    network = config.network(shape, num_classes)

    def make():
        return PatchedUNet(UNet2D(network, rngs=nnx.Rngs(config.seed)), config.patch)

    graph, params = initial(make, config)

    def denoiser_of(params):
        return NetworkDenoiser.wrap(nnx.merge(graph, params), num_classes)

    def show(params):
        _draw_samples(denoiser_of(params), noise.sampled, shape, config, folder / SAMPLES)

    error = denoising_loss(graph, noise, config)
    loss = Loss(
        lambda params, batch, key: error(params, key, *batch),
        lambda step: training.partly_hidden(step, config),
    )
    checkpoint = folder / CHECKPOINT
    state = minimise(loss, params, config, checkpoint, show=show, progress_bar=progress_bar)
    show(state.ema)
    return Learned(denoiser_of(state.ema), noise, float(state.seconds))


def initial(make: Callable[[], PatchedUNet], config: TrainConfig) -> tuple[Any, Any]:
    """Graph and parameters to start from.

    Args:
        make: the network with random weights.
        config: where ``init`` is set, that prior's weights are taken.

    Raises:
        InputError: a prior whose network is another.
    """
    if config.init is None:
        # Compiled as a whole: initialising layer by layer takes a minute.
        return nnx.split(nnx.jit(make)())
    network = nnx.eval_shape(make)
    folder = model_folder(config.init)
    weights = without_captions(read_weights(folder, read_config(folder, PRIOR)))
    unet: Any = network.unet
    own = unet.config
    if own.num_class_embeds is not None:  # an unconditional start knows no class
        size = (own.num_class_embeds, 4 * own.block_out_channels[0])
        weights.setdefault("class_embedding.weight", np.zeros(size, np.float32))
    try:
        load_state_dict(unet, weights)
    except InputError as error:
        raise InputError(
            f"train: init is {config.init}, whose network is another ({error}); give its channels,"
            " layers and patch"
        ) from error
    return nnx.split(network)


@functools.partial(jax.jit, static_argnames=("shape", "count"))
def _sample(key, denoiser, schedule: Cosine, prediction: Prediction, shape, count):
    prior = DiffusionPrior(denoiser, schedule, shape, prediction)
    if not denoiser.num_classes:
        return prior.sample(key, (count,))
    labels = jnp.arange(count) % (denoiser.num_classes + 1)  # the last is "no class"
    draw = jax.vmap(lambda label, key: prior.given(label).sample(key))
    return draw(labels, jax.random.split(key, count))


def _draw_samples(
    denoiser: NetworkDenoiser,
    schedule: Cosine,
    shape: tuple[int, ...],
    config: TrainConfig,
    file: Path,
) -> None:
    """Draws from the prior as it is now, as a picture; the same noise every time.

    A class-conditional prior is drawn from class by class, and last without a class.
    """
    if not plots.is_image(shape):
        return
    key = jax.random.key(config.seed)
    draws = _sample(key, denoiser, schedule, config.target(), shape, 32)
    plots.save_grid(np.asarray(draws), file, columns=8, scale=4)


def _write(
    data: str | Path,
    folder: Path,
    config: TrainConfig,
    learned: Learned[NetworkDenoiser],
    images: np.ndarray,
    clean: jax.Array,
    statistics: Statistics,
) -> None:
    """Writes the folder of the prior; ``clean`` are images that it was not trained on."""
    denoiser, schedule = learned.denoiser, learned.noise.sampled
    prediction = config.target()
    errors = held_out_errors(jax.vmap(denoiser, (0, None)), clean, schedule, prediction)
    prior = DiffusionPrior(
        denoiser, schedule, images.shape[1:], prediction,
        data_variance=statistics.variance, denoising_error=errors,
    )  # fmt: skip
    run = {"command": config.command(Path(data), folder), "seconds": learned.seconds}
    history = [*earlier_runs(config), run]
    size = sum(leaf.size for leaf in jax.tree.leaves(denoiser.state))
    card = model_card(
        folder.name, config, f"{len(images)} images of shape {images.shape[1:]}",
        f"U-Net of {size:,} parameters (diffusers' UNet2DModel on {config.patch} x {config.patch}"
        f" pixels folded into channels), {config.prediction}-prediction,"
        f" {type(schedule).__name__} schedule.",
        history, f"{error_table(errors)}\nDraws, 100 steps:\n\n![samples]({SAMPLES})\n",
    )  # fmt: skip
    about = {
        "description": config.description,
        "licence": config.licence,
        "data_norm": statistics.norm,
        "training": dataclasses.asdict(config),
        "history": history,
    }
    save_prior(prior, folder, card=card, about=about)


def earlier_runs(config: TrainConfig) -> list[dict[str, Any]]:
    """Commands and seconds of the runs that this one started from, oldest first."""
    if config.init is None:
        return []
    return read_config(model_folder(config.init)).get("history", [])
