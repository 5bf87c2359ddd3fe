"""The folder of a trained model: weights, configuration, card; and its checkpoint on the way."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from smcdiff.base.files import made_folder, replacing
from smcdiff.base.pixels import to_unit_range
from smcdiff.diffusion.schedules import Cosine
from smcdiff.errors import InputError
from smcdiff.networks.unet import UNet2D, state_dict
from smcdiff.store.zoo import prior_folder, read_config
from smcdiff.training.config import TrainConfig

CHECKPOINT = "checkpoint.safetensors"


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a finished training run leaves.

    Attributes:
        unet: the network with its averaged weights.
        schedule: noise levels that the prior is sampled at.
        data: file or folder of the images.
        images: all of them, uint8 of (n, h, w, c).
        errors: held-out mean squared error a pixel, by log-SNR.
        seconds: wall time.
    """

    unet: UNet2D
    schedule: Cosine
    data: Path
    images: np.ndarray
    errors: dict[int, float]
    seconds: float


@contextmanager
def training_folder(path: str | Path) -> Iterator[Path]:
    """Makes or continues the folder of a training run.

    Args:
        path: a folder that does not exist, is empty, or holds a checkpoint of an earlier run.

    Yields:
        The folder; one that is left empty goes again.

    Raises:
        InputError: a finished model or other files are there, or it cannot be written.
    """
    path, remedy = Path(path), "choose another --output"
    with made_folder(path, remedy) as folder:
        names = {file.name for file in folder.iterdir()}
        if "config.json" in names:
            raise InputError(f"{path} holds a finished model; nothing is overwritten: {remedy}")
        # A run that was killed before its first checkpoint leaves its pictures and unnamed parts.
        others = {name for name in names if not name.startswith(".part-")} - {"samples.png"}
        if others and CHECKPOINT not in names:
            raise InputError(f"{path} holds other files; nothing is overwritten: {remedy}")
        yield folder


def write_weights(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    """Writes model.safetensors, and returns its checksum."""
    file = folder / "model.safetensors"
    with replacing(file) as temporary:
        save_file(arrays, temporary)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_model(folder: Path, arrays: dict[str, np.ndarray], card: str, description: dict) -> None:
    """Writes model.safetensors, card.md and, last, config.json: what makes a folder a model."""
    checksum = write_weights(folder, arrays)
    config = json.dumps({**description, "sha256": checksum}, indent=2) + "\n"
    for name, content in (("card.md", card), ("config.json", config)):
        with replacing(folder / name) as temporary:
            temporary.write_text(content)


def write_prior(folder: Path, config: TrainConfig, trained: Trained) -> None:
    """Writes the folder of a prior."""
    here = {"command": config.command(trained.data, folder), "seconds": trained.seconds}
    history = [*_history(config), here]
    card = _card(folder.name, config, trained, history)
    description = _description(config, trained, history)
    write_model(folder, state_dict(trained.unet), card, description)


def _history(config: TrainConfig) -> list[dict]:
    """Commands and seconds of the runs that this one started from, oldest first."""
    if config.init is None:
        return []
    return read_config(prior_folder(config.init)).get("history", [])


def _description(config: TrainConfig, trained: Trained, history: list[dict]) -> dict:
    """What `smcdiff.load_prior` reads, and how it came to be."""
    chosen = np.random.default_rng(0).permutation(len(trained.images))[:10_000]
    sample = to_unit_range(trained.images[np.sort(chosen)])
    return {
        "description": config.description,
        "licence": config.licence,
        "event_shape": list(trained.images.shape[1:]),
        "network": dataclasses.asdict(trained.unet.config),
        "patch": config.patch,
        "prediction": config.prediction,
        "schedule": schedule_entry(trained.schedule),
        "data_variance": largest_variance(sample),
        "data_norm": float(np.sqrt(np.mean(np.sum(sample**2, axis=(1, 2, 3))))),
        "denoising_error": {str(log_snr): error for log_snr, error in trained.errors.items()},
        "training": dataclasses.asdict(config),
        "history": history,
    }


def schedule_entry(schedule: Cosine) -> dict:
    """A schedule as config.json has it."""
    return {"name": type(schedule).__name__, **dataclasses.asdict(schedule)}


def _card(name: str, config: TrainConfig, trained: Trained, history: list[dict]) -> str:
    commands = "\n\n".join(
        f"    {run['command']}\n\n({run['seconds'] / 60:.0f} minutes)" for run in history
    )
    size = sum(value.size for value in state_dict(trained.unet).values())
    images = trained.images
    return (
        f"# {name}\n\n{config.description}\n\n"
        f"Data: {len(images)} images of shape {images.shape[1:]}. Licence: {config.licence}\n\n"
        f"Trained on {jax.devices()[0].device_kind}, with\n\n{commands}\n\n"
        f"U-Net of {size:,} parameters (diffusers' UNet2DModel on {config.patch} x {config.patch}"
        f" pixels folded into channels), {config.prediction}-prediction,"
        f" {type(trained.schedule).__name__} schedule.\n\n"
        f"{error_table(trained.errors)}\n"
        "Draws, 100 steps:\n\n![samples](samples.png)\n"
    )


def error_table(errors: dict[int, float]) -> str:
    """The part of a card that has the held-out errors by noise level."""
    rows = "\n".join(f"| {log_snr} | {value:.5f} |" for log_snr, value in errors.items())
    return (
        "Held-out denoising error, mean squared a pixel, by log-SNR (data in [-1, 1]):\n\n"
        f"| log-SNR | error |\n|---|---|\n{rows}\n"
    )


def largest_variance(images: np.ndarray) -> float:
    """Largest eigenvalue of the images' covariance, from a random 2,000 of them at most.

    At random, for data are often sorted by class.
    """
    chosen = np.random.default_rng(0).permutation(len(images))[:2000]
    flat = images[chosen].reshape(len(chosen), -1)
    return float(np.linalg.norm(flat - flat.mean(axis=0), 2) ** 2 / len(flat))
