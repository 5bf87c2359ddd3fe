"""Training a prior: denoising score matching, and the folder of what was learned.

The loss is the mean squared error of the network's target (v by default) at stratified times,
``E |f(alpha x_0 + sigma eps, t) - target|^2`` (Ho et al. 2020; Salimans and Ho 2022).
"""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from smcdiff.base.pixels import to_unit_range
from smcdiff.diffusion import schedules
from smcdiff.networks.unet import PatchedUNet, UNet2D, UNet2DConfig, load_state_dict
from smcdiff.priors import DiffusionPrior
from smcdiff.results import plots
from smcdiff.store.zoo import (
    PREDICTIONS,
    NetworkDenoiser,
    prior_folder,
    read_config,
    read_weights,
)  # fmt: skip
from smcdiff.training.config import TrainConfig
from smcdiff.training.data import (
    LabelledImages,
    check_count,
    load_images,
    load_labels,
    split,
)  # fmt: skip
from smcdiff.training.folder import CHECKPOINT, Trained, training_folder, write_prior
from smcdiff.training.loop import Loss, minimise
from smcdiff.training.noise import SAMPLED, TRAINED, held_out_errors, noisy


def _loss(params, graph, batch, key, config: TrainConfig) -> Float[Array, ""]:
    """Mean squared error of the target at stratified times, drawn by their weight."""
    clean, labels = batch
    prediction = PREDICTIONS[config.prediction]()
    x, noise, times = noisy(key, clean, config.level_weighting(), prediction)
    level = schedules.levels(TRAINED, times[:, None, None, None])
    output = nnx.merge(graph, params)(x, schedules.TIMESTEPS * times, labels)
    return jnp.mean((output - prediction.target(clean, noise, level)) ** 2)


def train(data: str | Path, output: str | Path, config: TrainConfig | None = None) -> Path:
    """Trains a prior on images and writes its model folder.

    Runs that were killed resume from the last checkpoint in ``output``, to the same weights.

    Args:
        data: images; see `smcdiff.training.data.load_images`.
        output: folder of the prior: config.json, model.safetensors, card.md, samples.png.
        config: what to train.

    Returns:
        The folder.

    Raises:
        InputError: data or options that cannot be used; a folder that holds a finished prior.
    """
    config = TrainConfig() if config is None else config
    images = load_images(data)
    check_count(data, len(images), config.batch)
    labels = load_labels(data, len(images)) if config.labels else None
    with training_folder(output) as folder:
        _train(data, folder, config, images, labels)
    return folder


def _train(data: str | Path, folder: Path, config: TrainConfig, images, labels) -> None:
    """`train`, on data that were checked and in a folder that is there."""
    num_classes = 0 if labels is None else int(labels.max()) + 1
    network_config = config.network(images.shape[1:], num_classes)
    used, held_out = split(len(images), config.batch)
    training = LabelledImages(images, labels, num_classes, used)
    graph, params = _initial(network_config, config)
    checkpoint = folder / CHECKPOINT

    def denoiser_of(params):
        return NetworkDenoiser.wrap(nnx.merge(graph, params), num_classes)

    loss = Loss(
        lambda params, batch, key: _loss(params, graph, batch, key, config),
        lambda step: training.partly_hidden(step, config),
    )
    grid = folder / "samples.png"
    state = minimise(
        loss, params, config, checkpoint,
        lambda ema: draw_samples(denoiser_of(ema), images.shape[1:], config, grid),
    )  # fmt: skip
    denoiser = denoiser_of(state.ema)
    clean = jnp.asarray(to_unit_range(images[held_out[:256]]))
    outputs = jax.vmap(denoiser, (0, None))
    errors = held_out_errors(outputs, clean, PREDICTIONS[config.prediction]())
    draw_samples(denoiser, images.shape[1:], config, grid)
    unet = nnx.merge(graph, state.ema).unet
    trained = Trained(unet, SAMPLED, Path(data), images, errors, float(state.seconds))
    write_prior(folder, config, trained)
    checkpoint.unlink()


def _initial(network_config: UNet2DConfig, config: TrainConfig):
    """Graph and parameters to start from."""

    def make():
        return PatchedUNet(UNet2D(network_config, rngs=nnx.Rngs(config.seed)), config.patch)

    if config.init is None:
        # Compiled as a whole: initialising layer by layer takes a minute.
        return nnx.split(nnx.jit(make)())
    network = nnx.eval_shape(make)
    folder = prior_folder(config.init)
    weights = read_weights(folder, read_config(folder))
    if network_config.num_class_embeds is not None:  # an unconditional start knows no class
        size = (network_config.num_class_embeds, 4 * network_config.block_out_channels[0])
        weights.setdefault("class_embedding.weight", np.zeros(size, np.float32))
    load_state_dict(network.unet, weights)
    return nnx.split(network)


@functools.partial(jax.jit, static_argnames=("shape", "prediction", "count"))
def _sample(key, denoiser, shape, prediction, count):
    prior = DiffusionPrior(denoiser, SAMPLED, shape, PREDICTIONS[prediction]())
    if not denoiser.num_classes:
        return prior.sample(key, (count,))
    labels = jnp.arange(count) % (denoiser.num_classes + 1)  # the last is "no class"
    draw = jax.vmap(lambda label, key: prior.given(label).sample(key))
    return draw(labels, jax.random.split(key, count))


def draw_samples(
    denoiser: NetworkDenoiser, shape: tuple[int, ...], config: TrainConfig, file: Path
) -> None:
    """Draws from the prior as it is now, as a picture; the same noise every time.

    A class-conditional prior is drawn from class by class, and last without a class.
    """
    draws = _sample(jax.random.key(config.seed), denoiser, shape, config.prediction, 32)
    if plots.is_image(shape):
        plots.save_grid(np.asarray(draws), file, columns=8, scale=4)
