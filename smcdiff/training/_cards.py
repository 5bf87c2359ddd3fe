"""The cards of trained models: what they were made from, by which command, how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from smcdiff.priors import DenoisingError
from smcdiff.training.config import TrainConfig

History = Sequence[Mapping[str, Any]]
"""Runs that led to a model, oldest first: ``command`` and ``seconds`` of each."""


def model_card(
    name: str, config: TrainConfig, data: str, network: str, history: History, rest: str
) -> str:
    """The text of card.md.

    Args:
        name: of the model.
        config: how it was trained.
        data: what it was trained on.
        network: what it is.
        history: the runs that led to it.
        rest: tables and pictures.
    """
    commands = "\n\n".join(
        f"    {run['command']}\n\n({_duration(run['seconds'])})" for run in history
    )
    licence = f" Licence: {config.licence}" if config.licence else ""
    paragraphs = [
        f"# {name}",
        config.description,
        f"Data: {data}.{licence}",
        f"Trained on {jax.devices()[0].device_kind}, with",
        commands,
        network,
        rest,
    ]
    return "\n\n".join(filter(None, paragraphs))


def _duration(seconds: float) -> str:
    """In seconds below two minutes, else in minutes."""
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def error_table(errors: DenoisingError) -> str:
    """The held-out errors by noise level."""
    pairs = zip(errors.log_snr.tolist(), errors.values.tolist(), strict=True)
    return _table(
        "Held-out denoising error, mean squared per pixel, by log-SNR (data in [-1, 1]):",
        "error",
        {log_snr: f"{error:.5f}" for log_snr, error in pairs},
    )


def accuracy_table(accuracies: Mapping[float, float]) -> str:
    """The held-out accuracies of a classifier by noise level."""
    return _table(
        "Held-out accuracy by log-SNR (data in [-1, 1]):",
        "accuracy",
        {log_snr: f"{value:.1%}" for log_snr, value in accuracies.items()},
    )


def contrast_table(contrasts: Mapping[float, float]) -> str:
    """How well a twist tells held-out pairs apart, by noise level."""
    return _table(
        "Held-out contrast by log-SNR, in nat: how much more likely than the mean over other events"
        " the twist finds the event that an observation came from (0 knows nothing):",
        "contrast",
        {log_snr: f"{value:.3f}" for log_snr, value in contrasts.items()},
    )


def _table(title: str, column: str, values: Mapping[float, str]) -> str:
    rows = "\n".join(f"| {log_snr:g} | {value} |" for log_snr, value in values.items())
    return f"{title}\n\n| log-SNR | {column} |\n|---|---|\n{rows}\n"
