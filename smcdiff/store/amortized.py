"""Writing and loading amortised networks: those that see the observation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smcdiff.store import _entries as entries
from smcdiff.store import _folder as folders
from smcdiff.store._network_functions import ConditionalNetwork, parameters

KIND = "conditional"


def save_conditional(
    learned: ConditionalNetwork, folder: Path, card: str, about: Mapping[str, Any]
) -> Path:
    """Writes an amortised network as a folder that `load_conditional` reads.

    Args:
        learned: the network.
        folder: where.
        card: text of card.md.
        about: more entries of config.json.

    Returns:
        The folder.

    Raises:
        InputError: a folder that is taken or cannot be written.
    """
    from flax import nnx

    network = nnx.merge(learned.graph, learned.state)
    described = {
        "kind": KIND,
        **about,
        "event_shape": entries.shape_entry(learned.event_shape),
        "observation_shape": entries.shape_entry(learned.observation_shape),
        "observation_mean": float(learned.mean),
        "observation_std": float(learned.std),
        "network": dataclasses.asdict(network.net.unet.config),
        "patch": network.net.patch,
        "prediction": entries.prediction_entry(learned.prediction),
        "schedule": entries.schedule_entry(learned.schedule),
        "data_variance": float(learned.data_variance),
    }
    return folders.write_model(folder, parameters(network), card, described)


def read_shapes(config: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of an event and of an observation."""
    return (
        entries.read_shape(config["event_shape"]),
        entries.read_shape(config["observation_shape"]),
    )


def build_conditional(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]):
    """Graph and state of the `smcdiff.networks._conditional.ConditionalUNet` of a configuration."""
    from flax import nnx

    from smcdiff.networks._conditional import ConditionalUNet
    from smcdiff.networks.unet import UNet2DConfig, load_state_dict

    network, patch = UNet2DConfig.from_dict(config["network"]), config["patch"]
    shapes = read_shapes(config)
    module = nnx.eval_shape(lambda: ConditionalUNet(network, patch, *shapes, rngs=nnx.Rngs(0)))
    load_state_dict(module, dict(weights))
    return nnx.split(module)


def load_conditional(path: str | os.PathLike) -> ConditionalNetwork:
    """Loads a network that `smcdiff train amortized` wrote.

    Args:
        path: its folder.

    Raises:
        InputError: no such folder, or one that is incomplete, damaged or of another kind.
    """
    folder = Path(path)
    config = folders.read_config(folder, KIND)
    with folders.understanding(folder):
        shapes = read_shapes(config)
        graph, state = build_conditional(config, folders.read_weights(folder, config))
        return ConditionalNetwork(
            state,
            float(config["observation_mean"]),
            float(config["observation_std"]),
            entries.read_prediction(config["prediction"]),
            entries.read_schedule(config["schedule"]),
            graph,
            *shapes,
            data_variance=float(config["data_variance"]),
        )
