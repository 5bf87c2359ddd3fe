"""Writing and loading learned priors.

A prior whose denoiser is a network of this package is written whole. Of anybody else's denoiser
the arrays are written, and who loads it builds a denoiser of the same structure to put them into.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smcdiff.priors import DiffusionPrior
from smcdiff.store import _entries as entries
from smcdiff.store import _folder as folders
from smcdiff.store._denoisers import describe_denoiser, read_denoiser
from smcdiff.store._terminal import check_terminal
from smcdiff.store.shipped import model_folder


def save_prior(
    prior: DiffusionPrior,
    folder: str | os.PathLike,
    *,
    card: str = "",
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a prior as a folder that `load_prior` reads, with the same bits.

    Args:
        prior: the prior. Of a denoiser that is no network of this package only the arrays are
            written: keep the code that builds it.
        folder: where; it must hold no model yet.
        card: text of card.md; a line about the prior where it is left out.
        about: more entries of config.json: ``description`` and ``licence``, for example.

    Returns:
        The folder.

    Raises:
        InputError: a schedule, prediction or threshold of somebody else's class, a denoiser whose
            leaves are no arrays, or a folder that is taken or cannot be written.
    """
    arrays, network = describe_denoiser(prior.denoiser)
    described = {
        "kind": folders.PRIOR,
        **(about or {}),
        "event_shape": entries.shape_entry(prior.event_shape),
        **network,
        "prediction": entries.prediction_entry(prior.prediction),
        "schedule": entries.schedule_entry(prior.schedule),
        "data_variance": float(prior.data_variance),
        "denoising_error": entries.error_entry(prior.denoising_error),
        "threshold": entries.threshold_entry(prior.threshold),
        "num_steps": int(prior.num_steps),
    }
    path = Path(folder)
    card = card or f"# {path.name}\n\nA diffusion prior of events of shape {prior.event_shape}.\n"
    return folders.write_model(path, arrays, card, described)


def load_prior(
    name_or_path: str | os.PathLike, *, denoiser: Callable | None = None
) -> DiffusionPrior:
    """Loads a learned prior.

    Args:
        name_or_path: a name of `smcdiff.list_priors`, or the folder of a prior.
        denoiser: where the folder holds the arrays of a denoiser of your own: one of the same
            structure, whose arrays are replaced by those of the folder.

    Returns:
        The prior: a NumPyro distribution over events in the units it was trained in.

    Raises:
        InputError: unknown name, a folder that is incomplete, damaged or not understood, or a
            denoiser that is missing, not wanted, or of another structure.
    """
    folder = model_folder(name_or_path)
    config = folders.read_config(folder, folders.PRIOR)
    with folders.understanding(folder):
        schedule = entries.read_schedule(config["schedule"])
        variance = float(config["data_variance"])
        if not 0.0 < variance < np.inf:
            raise ValueError("data_variance must be positive")
        if "data_norm" in config:
            check_terminal(str(folder), schedule, float(config["data_norm"]), variance)
        options = {"num_steps": config["num_steps"]} if "num_steps" in config else {}
        if not all(isinstance(value, int) and value > 1 for value in options.values()):
            raise ValueError("num_steps must be a whole number, at least 2")
        return DiffusionPrior(
            read_denoiser(folder, config, denoiser),
            schedule,
            entries.read_shape(config["event_shape"]),
            entries.read_prediction(config["prediction"]),
            data_variance=variance,
            denoising_error=entries.read_error(config.get("denoising_error")),
            threshold=entries.read_threshold(config.get("threshold")),
            probe=False,  # it was tried when it was made
            **options,
        )
