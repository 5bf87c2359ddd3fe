"""Writing and loading noise-conditional classifiers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smcdiff.store import _folder as folders
from smcdiff.store._entries import read_schedule, schedule_entry
from smcdiff.store._network_functions import NetworkClassifier, parameters

KIND = "classifier"


def save_classifier(
    classifier: NetworkClassifier, folder: Path, card: str, about: Mapping[str, Any]
) -> Path:
    """Writes a classifier as a folder that `load_classifier` reads.

    Args:
        classifier: a `smcdiff.networks._classifier.NoisyClassifier` as a function.
        folder: where.
        card: text of card.md.
        about: more entries of config.json.

    Returns:
        The folder.

    Raises:
        InputError: a folder that is taken or cannot be written.
    """
    from flax import nnx

    network = nnx.merge(classifier.graph, classifier.state)
    entries = {
        "kind": KIND,
        **about,
        "network": dataclasses.asdict(network.config),
        "patch": network.patch,
        "num_classes": network.linear_out.out_features,
        "schedule": schedule_entry(classifier.schedule),
    }
    return folders.write_model(folder, parameters(network), card, entries)


def load_classifier(path: str | os.PathLike) -> NetworkClassifier:
    """Loads a classifier that `smcdiff train classifier` wrote.

    Args:
        path: its folder.

    Raises:
        InputError: no such folder, or one that is incomplete, damaged or of another kind.
    """
    from flax import nnx

    from smcdiff.networks._classifier import NoisyClassifier
    from smcdiff.networks.unet import UNet2DConfig, load_state_dict

    folder = Path(path)
    config = folders.read_config(folder, KIND)
    with folders.understanding(folder):
        network = UNet2DConfig.from_dict(config["network"])
        sizes = config["patch"], config["num_classes"]
        module = nnx.eval_shape(lambda: NoisyClassifier(network, *sizes, rngs=nnx.Rngs(0)))
        load_state_dict(module, folders.read_weights(folder, config))
        graph, state = nnx.split(module)
        return NetworkClassifier(state, read_schedule(config["schedule"]), graph)
