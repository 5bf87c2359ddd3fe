"""Writing and loading learned twists."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from smcdiff.store import _entries as entries
from smcdiff.store import _folder as folders
from smcdiff.store._network_functions import TwistNetwork, parameters
from smcdiff.twists import Learned

if TYPE_CHECKING:
    from smcdiff.networks._contrast import ContrastConfig

KIND = "twist"
_ARRAYS = ("events", "event_mean", "event_variance", "observation_centre", "observation_scale")
"""Arrays of a folder besides the network's."""
_SHAPES = ("event_shape", "observation_shape")


def save_twist(learned: TwistNetwork, folder: Path, card: str, about: Mapping[str, Any]) -> Path:
    """Writes a learned twist as a folder that `load_twist` reads.

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
    arrays = {name: np.asarray(getattr(learned, name)) for name in _ARRAYS}
    described = {
        "kind": KIND,
        **about,
        **network.config.entries(),
        "log_snr_ends": [float(end) for end in np.asarray(learned.log_snr_ends)],
    }
    return folders.write_model(folder, {**parameters(network), **arrays}, card, described)


def load_twist(path: str | os.PathLike) -> Learned:
    """Loads a twist that `smcdiff train twist` wrote.

    Args:
        path: its folder.

    Returns:
        The twist, for `smcdiff.proposals.Twisted` or `smcdiff.proposals.Bootstrap`.

    Raises:
        InputError: no such folder, or one that is incomplete, damaged or of another kind.
    """
    from smcdiff.networks._contrast import ContrastConfig

    folder = Path(path)
    config = folders.read_config(folder, KIND)
    with folders.understanding(folder):
        shapes = {name: entries.read_shape(config[name]) for name in _SHAPES}
        made = ContrastConfig.from_entries({**config, **shapes})
        ends = [float(end) for end in config["log_snr_ends"]]
        return Learned(_build(made, ends, folders.read_weights(folder, config)))


def _build(
    made: ContrastConfig, ends: list[float], weights: Mapping[str, np.ndarray]
) -> TwistNetwork:
    """The network of a configuration."""
    from flax import nnx

    from smcdiff.networks._contrast import ContrastNetwork
    from smcdiff.networks.unet import load_state_dict

    module = nnx.eval_shape(lambda: ContrastNetwork(made, rngs=nnx.Rngs(0)))
    weights = dict(weights)
    arrays = {name: jnp.asarray(weights.pop(name)) for name in _ARRAYS}
    for name, array in arrays.items():
        kind = name.partition("_")[0].removesuffix("s")  # event or observation
        shape = array.shape[1:] if name == "events" else array.shape
        if shape != getattr(made, f"{kind}_shape"):
            raise ValueError(f"{name} has shape {array.shape}")
    load_state_dict(module, weights)
    graph, state = nnx.split(module)
    return TwistNetwork(
        state, **arrays, log_snr_ends=jnp.array(ends), graph=graph,
        observation_shape=made.observation_shape, bound=made.bound,
    )  # fmt: skip
