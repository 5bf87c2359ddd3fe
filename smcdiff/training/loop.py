"""Denoising score matching with Optax: exponential moving average, checkpoints, a model folder.

The loss is the mean squared error of the network's target (v by default) at stratified times,
``E |f(alpha x_0 + sigma eps, t) - target|^2`` (Ho et al. 2020; Salimans and Ho 2022). Every
random number is a function of the seed and the step, so that a run that was killed and resumed ends
with the weights of one that was not.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from safetensors.numpy import load_file, save_file

from smcdiff import plots, schedules
from smcdiff.errors import InputError
from smcdiff.networks.unet import PatchedUNet, UNet2D, UNet2DConfig, load_state_dict
from smcdiff.pixels import to_unit_range
from smcdiff.priors import DiffusionPrior
from smcdiff.progress import ProgressBar
from smcdiff.training.config import TrainConfig
from smcdiff.training.data import batch_indices, hide_labels, load_images, load_labels
from smcdiff.training.folder import Trained, write
from smcdiff.training.weighting import draw_times
from smcdiff.zoo import PREDICTIONS, NetworkDenoiser, prior_folder


class _State(NamedTuple):
    params: Any
    ema: Any
    optimiser: Any
    step: jax.Array
    seconds: jax.Array


class _Data(NamedTuple):
    images: np.ndarray
    labels: np.ndarray | None
    num_classes: int

    def batch(self, step: int, config: TrainConfig):
        """Images in [-1, 1] and labels of one step; ``num_classes`` stands for a hidden label."""
        chosen = batch_indices(step, config.batch, len(self.images), config.seed)
        clean, labels = jnp.asarray(to_unit_range(self.images[chosen])), self.labels
        if labels is not None:
            share, seed = config.label_dropout, config.seed
            labels = hide_labels(labels[chosen], share, self.num_classes, step, seed)
            labels = jnp.asarray(labels)
        return clean, labels


# Trained a little beyond the levels that are sampled, so that no sampled one is at the border.
_SCHEDULE = schedules.Cosine(t_min=0.004, t_max=0.996)
_SAMPLED = schedules.Cosine()


def _loss(params, graph, clean, labels, key, prediction, weighting):
    """Mean squared error of the target at stratified times, drawn by their weight."""
    key_time, key_noise = jax.random.split(key)
    batch = clean.shape[0]
    strata = (jnp.arange(batch) + jax.random.uniform(key_time)) / batch
    times = draw_times(strata, weighting, prediction, _SCHEDULE)
    level = schedules.levels(_SCHEDULE, times[:, None, None, None])
    noise = jax.random.normal(key_noise, clean.shape)
    noisy = level.alpha * clean + level.sigma * noise
    output = nnx.merge(graph, params)(noisy, 1000.0 * times, labels)
    return jnp.mean((output - prediction.target(clean, noise, level)) ** 2)


def _make_step(config: TrainConfig, graph):
    optimiser, prediction = config.optimiser(), PREDICTIONS[config.prediction]()
    weighting = config.level_weighting()

    @jax.jit
    def step(state: _State, clean, labels, key):
        key = jax.random.fold_in(key, state.step)
        loss, gradient = jax.value_and_grad(_loss)(
            state.params, graph, clean, labels, key, prediction, weighting
        )
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(config.ema, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.ema, params)
        return _State(params, ema, optimiser_state, state.step + 1, state.seconds), loss

    return step


def _save_checkpoint(file: Path, state: _State) -> None:
    """Writes all of the state; a file that is not finished never takes the name."""
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    temporary = file.with_suffix(".part")
    save_file(leaves, temporary)
    os.replace(temporary, file)


def _load_checkpoint(file: Path, state: _State) -> _State:
    stored = load_file(file)
    leaves, structure = jax.tree.flatten(state)
    fits = len(stored) == len(leaves) and all(
        stored[str(i)].shape == leaf.shape for i, leaf in enumerate(leaves)
    )
    if not fits:
        raise InputError(
            f"{file}: a checkpoint of another configuration; use the same options or a new folder"
        )
    return jax.tree.unflatten(structure, [jnp.asarray(stored[str(i)]) for i in range(len(leaves))])


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
    if len(images) < 2 * config.batch:
        raise InputError(f"{data}: {len(images)} images are too few for batches of {config.batch}")
    folder = Path(output)
    if (folder / "config.json").exists():
        raise InputError(f"{folder} holds a finished prior; choose another folder")
    labels = load_labels(data, len(images)) if config.labels else None
    num_classes = 0 if labels is None else int(labels.max()) + 1
    network_config = config.network(images.shape[1:], num_classes)
    folder.mkdir(parents=True, exist_ok=True)
    held_out = max(config.batch, len(images) // 60)
    shown = None if labels is None else labels[:-held_out]
    training = _Data(images[:-held_out], shown, num_classes)
    graph, params = _initial(network_config, config)
    state = _State(params, params, config.optimiser().init(params), jnp.int32(0), jnp.float32(0))
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        state = _load_checkpoint(checkpoint, state)
    state = _loop(config, graph, state, training, checkpoint)
    denoiser = NetworkDenoiser.wrap(nnx.merge(graph, state.ema), num_classes)
    errors = _held_out_errors(denoiser, images[-held_out:], config)
    draw_samples(denoiser, images.shape[1:], config, folder / "samples.png")
    unet = nnx.merge(graph, state.ema).unet
    trained = Trained(unet, _SAMPLED, Path(data), images, errors, float(state.seconds))
    write(folder, config, trained)
    checkpoint.unlink()
    return folder


def _initial(network_config: UNet2DConfig, config: TrainConfig):
    """Graph and parameters to start from."""

    def make():
        return PatchedUNet(UNet2D(network_config, rngs=nnx.Rngs(config.seed)), config.patch)

    if config.init is None:
        # Compiled as a whole: initialising layer by layer takes a minute.
        return nnx.split(nnx.jit(make)())
    network = nnx.eval_shape(make)
    weights = load_file(prior_folder(config.init) / "model.safetensors")
    if network_config.num_class_embeds is not None:  # an unconditional start knows no class
        size = (network_config.num_class_embeds, 4 * network_config.block_out_channels[0])
        weights.setdefault("class_embedding.weight", np.zeros(size, np.float32))
    load_state_dict(network.unet, weights)
    return nnx.split(network)


def _loop(config: TrainConfig, graph, state: _State, data: _Data, checkpoint: Path) -> _State:
    """The optimiser's steps that are left, with progress, checkpoints and sample grids."""
    step, key = _make_step(config, graph), jax.random.key(config.seed)
    grid = checkpoint.parent / "samples.png"
    start = time.perf_counter() - float(state.seconds)
    with ProgressBar(config.steps, "Training") as progress:
        for index in range(int(state.step), config.steps):
            clean, labels = data.batch(index, config)
            state, loss = step(state, clean, labels, key)
            last = index + 1 == config.steps
            if not (index + 1) % 10 or last:
                progress(index + 1, config.steps, {"loss": loss})
            if not (index + 1) % config.checkpoint_every or last:
                if not bool(jnp.isfinite(loss)):
                    raise InputError(
                        f"train: the loss is {loss} at step {index + 1}; lower the learning rate"
                    )
                state = state._replace(seconds=jnp.float32(time.perf_counter() - start))
                _save_checkpoint(checkpoint, state)
            if not (index + 1) % config.sample_every:
                denoiser = NetworkDenoiser.wrap(nnx.merge(graph, state.ema), data.num_classes)
                draw_samples(denoiser, data.images.shape[1:], config, grid)
    return state


@functools.partial(jax.jit, static_argnames=("shape", "prediction", "count"))
def _sample(key, denoiser, shape, prediction, count):
    prior = DiffusionPrior(denoiser, _SAMPLED, shape, PREDICTIONS[prediction]())
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


def _held_out_errors(denoiser: NetworkDenoiser, images, config: TrainConfig) -> dict[int, float]:
    """Mean squared error of the denoised image, a pixel, at some noise levels."""
    prediction = PREDICTIONS[config.prediction]()
    clean = jnp.asarray(to_unit_range(images[:256]))
    noise = jax.random.normal(jax.random.key(0), clean.shape)

    @jax.jit
    def error(t):
        level = schedules.levels(_SCHEDULE, t)
        noisy = level.alpha * clean + level.sigma * noise
        output = jax.vmap(denoiser, (0, None))(noisy, t)
        return jnp.mean((prediction.denoised(output, noisy, level) - clean) ** 2)

    log_snrs = range(-8, 9, 2)
    return {v: float(error(_SCHEDULE.time(jnp.asarray(float(v))))) for v in log_snrs}
