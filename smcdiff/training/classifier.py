"""Training a noise-conditional classifier, for classifier guidance."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from smcdiff.base._progress import Progress
from smcdiff.diffusion import schedules
from smcdiff.networks._classifier import NoisyClassifier
from smcdiff.store._entries import shape_entry
from smcdiff.store._network_functions import NetworkClassifier
from smcdiff.store.classifier import save_classifier
from smcdiff.training._cards import accuracy_table, model_card
from smcdiff.training._data import (
    LabelledImages,
    check_count,
    load_images,
    load_labels,
    split,
)  # fmt: skip
from smcdiff.training._folder import CHECKPOINT, training_folder
from smcdiff.training._loop import Loss, minimise
from smcdiff.training._noise import Noise, noisy
from smcdiff.training._statistics import Statistics, clean_events
from smcdiff.training.config import TrainConfig


def train_classifier(
    data: str | Path,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    progress_bar: bool | Progress = True,
) -> Path:
    """Trains a classifier p(class given x_t) at every noise level, by cross entropy.

    Runs that were killed resume from the last checkpoint in ``output``, to the same weights.

    Args:
        data: an .npz of images and labels; see `smcdiff.training._data.load_labels`.
        output: folder of the classifier: config.json, model.safetensors, card.md.
        config: what to train; ``weighting`` says at which noise levels.
        progress_bar: show progress; or a callable ``progress(t, num_steps, info)``, called after
            every step, which may raise to end the run there.

    Returns:
        The folder.

    Raises:
        InputError: data or options that cannot be used; a folder that holds a finished model.
    """
    config = TrainConfig() if config is None else config
    config.refuse("a classifier", "labels", "label_dropout", "init", "sample_every")
    images = load_images(data)
    check_count(data, len(images), config.batch_size)
    labels = load_labels(data, len(images))
    noise = Noise.of(Statistics.of(str(data), images))
    used, held_out = split(len(images), config.batch_size)
    training = LabelledImages(images, labels, int(labels.max()) + 1, used)
    with training_folder(output) as folder:
        classifier, seconds = _learn(training, folder, config, noise, progress_bar)
        accuracies = _accuracies(classifier, images[held_out[:1000]], labels[held_out[:1000]])
        _write(Path(data), folder, config, classifier, seconds, images, accuracies)
    return folder


def _learn(
    training: LabelledImages,
    folder: Path,
    config: TrainConfig,
    noise: Noise,
    progress_bar: bool | Progress,
) -> tuple[NetworkClassifier, float]:
    """The classifier with its averaged weights, and the wall time in seconds."""
    network = config.network(training.images.shape[1:])
    num_classes = training.num_classes

    def make():
        return NoisyClassifier(network, config.patch, num_classes, rngs=nnx.Rngs(config.seed))

    graph, params = nnx.split(nnx.jit(make)())
    prediction, weighting = config.target(), config.level_weighting()

    def value(params, batch, key):
        clean, classes = batch
        x, _, times = noisy(key, clean, noise.trained, weighting, prediction)
        logits = nnx.merge(graph, params)(x, schedules.TIMESTEPS * times)
        return optax.softmax_cross_entropy_with_integer_labels(logits, classes).mean()

    loss = Loss(value, lambda step: training.batch(step, config))
    state = minimise(loss, params, config, folder / CHECKPOINT, progress_bar=progress_bar)
    return NetworkClassifier(state.ema, noise.sampled, graph), float(state.seconds)


def _accuracies(classifier: NetworkClassifier, images, labels) -> dict[float, float]:
    """Share of held-out images whose class is right, by log-SNR."""
    clean = jnp.asarray(clean_events(images))
    noise = jax.random.normal(jax.random.key(0), clean.shape)

    @jax.jit
    def accuracy(log_snr):
        t = classifier.schedule.time(log_snr)
        level = classifier.schedule.level(t)
        logits = jax.vmap(classifier, (0, None))(level.alpha * clean + level.sigma * noise, t)
        return jnp.mean(jnp.argmax(logits, -1) == jnp.asarray(labels))

    return {float(v): float(accuracy(float(v))) for v in range(-8, 9, 2)}


def _write(
    data: Path,
    folder: Path,
    config: TrainConfig,
    classifier: NetworkClassifier,
    seconds: float,
    images: np.ndarray,
    accuracies: dict[float, float],
) -> None:
    """Writes the folder of the classifier."""
    history = [{"command": config.command(data, folder, "classifier"), "seconds": seconds}]
    size = sum(leaf.size for leaf in jax.tree.leaves(classifier.state))
    network = (
        f"Noise-conditional classifier of {size:,} parameters (the descending half of a U-Net)."
    )
    card = model_card(
        folder.name, config, f"{len(images)} labelled images", network, history,
        accuracy_table(accuracies),
    )  # fmt: skip
    about = {
        "description": config.description,
        "licence": config.licence,
        "event_shape": shape_entry(images.shape[1:]),
        "history": history,
    }
    save_classifier(classifier, folder, card, about)
