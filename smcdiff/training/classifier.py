"""Training a noise-conditional classifier, for classifier guidance."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from smcdiff.base.pixels import to_unit_range
from smcdiff.diffusion import schedules
from smcdiff.networks.classifier import NoisyClassifier
from smcdiff.networks.unet import state_dict
from smcdiff.store.conditional import NetworkClassifier
from smcdiff.store.zoo import PREDICTIONS
from smcdiff.training.config import TrainConfig
from smcdiff.training.data import (
    LabelledImages,
    check_count,
    load_images,
    load_labels,
    split,
)  # fmt: skip
from smcdiff.training.folder import CHECKPOINT, schedule_entry, training_folder, write_model
from smcdiff.training.loop import Loss, minimise
from smcdiff.training.noise import SAMPLED, TRAINED, noisy


def train_classifier(
    data: str | Path, output: str | Path, config: TrainConfig | None = None
) -> Path:
    """Trains a classifier p(class given x_t) at every noise level, by cross entropy.

    Runs that were killed resume from the last checkpoint in ``output``, to the same weights.

    Args:
        data: an .npz of images and labels; see `smcdiff.training.data.load_labels`.
        output: folder of the classifier: config.json, model.safetensors, card.md.
        config: what to train; ``weighting`` says at which noise levels.

    Returns:
        The folder.

    Raises:
        InputError: data or options that cannot be used; a folder that holds a finished model.
    """
    config = TrainConfig() if config is None else config
    config.refuse("a classifier", "labels", "label_dropout", "init", "sample_every")
    images = load_images(data)
    check_count(data, len(images), config.batch)
    labels = load_labels(data, len(images))
    with training_folder(output) as folder:
        _train(data, folder, config, images, labels)
    return folder


def _train(data: str | Path, folder: Path, config: TrainConfig, images, labels) -> None:
    """`train_classifier`, on data that were checked and in a folder that is there."""
    num_classes = int(labels.max()) + 1
    network = config.network(images.shape[1:])

    def make():
        return NoisyClassifier(network, config.patch, num_classes, rngs=nnx.Rngs(config.seed))

    graph, params = nnx.split(nnx.jit(make)())
    used, held_out = split(len(images), config.batch)
    known = LabelledImages(images, labels, num_classes, used)
    prediction = PREDICTIONS[config.prediction]()

    def loss(params, batch, key):
        clean, classes = batch
        x, _, times = noisy(key, clean, config.level_weighting(), prediction)
        logits = nnx.merge(graph, params)(x, schedules.TIMESTEPS * times)
        return optax.softmax_cross_entropy_with_integer_labels(logits, classes).mean()

    checkpoint = folder / CHECKPOINT
    state = minimise(Loss(loss, lambda step: known.batch(step, config)), params, config, checkpoint)
    classifier = NetworkClassifier(state.ema, SAMPLED, graph)
    accuracies = _accuracies(classifier, images[held_out], labels[held_out])
    arrays = state_dict(nnx.merge(graph, state.ema))
    run = {"command": config.command(Path(data), folder, "classifier"),
           "seconds": float(state.seconds)}  # fmt: skip
    size = sum(array.size for array in arrays.values())
    card = _card(folder.name, config, len(images), size, run, accuracies)
    description = {
        "kind": "classifier",
        "description": config.description,
        "licence": config.licence,
        "event_shape": list(images.shape[1:]),
        "network": dataclasses.asdict(network),
        "patch": config.patch,
        "num_classes": num_classes,
        "schedule": schedule_entry(SAMPLED),
        "history": [run],
    }
    write_model(folder, arrays, card, description)
    checkpoint.unlink()


def _accuracies(classifier: NetworkClassifier, images, labels) -> dict[int, float]:
    """Share of held-out images whose class is right, by log-SNR."""
    clean = jnp.asarray(to_unit_range(images[:1000]))
    noise = jax.random.normal(jax.random.key(0), clean.shape)

    @jax.jit
    def accuracy(t):
        level = schedules.levels(TRAINED, t)
        logits = jax.vmap(classifier, (0, None))(level.alpha * clean + level.sigma * noise, t)
        return jnp.mean(jnp.argmax(logits, -1) == jnp.asarray(labels[:1000]))

    times = {v: TRAINED.time(jnp.asarray(float(v))) for v in range(-8, 9, 2)}
    return {v: float(accuracy(t)) for v, t in times.items()}


def _card(name: str, config: TrainConfig, count: int, size: int, run: dict, accuracies) -> str:
    rows = "\n".join(f"| {log_snr} | {value:.1%} |" for log_snr, value in accuracies.items())
    return (
        f"# {name}\n\n{config.description}\n\n"
        f"Data: {count} labelled images. Licence: {config.licence}\n\n"
        f"Trained on {jax.devices()[0].device_kind}, with\n\n    {run['command']}\n\n"
        f"({run['seconds'] / 60:.0f} minutes)\n\n"
        f"Noise-conditional classifier of {size:,} parameters (the descending half of a U-Net).\n\n"
        "Held-out accuracy by log-SNR (data in [-1, 1]):\n\n"
        f"| log-SNR | accuracy |\n|---|---|\n{rows}\n"
    )
