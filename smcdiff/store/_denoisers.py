"""The denoiser of a prior as arrays and entries of a model's folder, and back.

A network of this package is described by its configuration, and its arrays have the names and
layouts of diffusers' ``UNet2DModel``. Of any other denoiser only the arrays are known, by their
place in its pytree: ``.layers[0].weight``, say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff.base.module import Portable, portable
from smcdiff.errors import InputError
from smcdiff.store._entries import shape_entry
from smcdiff.store._folder import read_arrays, read_weights
from smcdiff.store._network_functions import NetworkDenoiser, ObservationDenoiser, parameters
from smcdiff.store._text_denoiser import (
    TextDenoiser,
    describe_text_denoiser,
    read_text_denoiser,
)  # fmt: skip
from smcdiff.store._upsampling_denoiser import (
    UpsamplingDenoiser,
    describe_upsampling_denoiser,
    read_upsampling_denoiser,
)
from smcdiff.store.amortized import build_conditional

Arrays = dict[str, np.ndarray]
_OBSERVATION = "observation"


def describe_denoiser(denoiser: Any) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of a denoiser, and the entries that say how to build it again.

    Raises:
        InputError: a leaf that cannot be stored as an array.
    """
    from flax import nnx

    from smcdiff.networks._conditional import ConditionalUNet
    from smcdiff.networks.unet import PatchedUNet

    if isinstance(denoiser, UpsamplingDenoiser):
        return describe_upsampling_denoiser(denoiser)
    if isinstance(denoiser, TextDenoiser):
        return describe_text_denoiser(denoiser)
    if isinstance(denoiser, NetworkDenoiser | ObservationDenoiser):
        network = nnx.merge(denoiser.graph, denoiser.state)
        if isinstance(denoiser, NetworkDenoiser) and isinstance(network, PatchedUNet):
            return parameters(network.unet), {**_network_entries(network), **_condition(denoiser)}
        if isinstance(denoiser, ObservationDenoiser) and isinstance(network, ConditionalUNet):
            arrays = {**parameters(network), _OBSERVATION: np.asarray(denoiser.observation)}
            shape = shape_entry(denoiser.observation.shape)
            return arrays, {**_network_entries(network.net), "observation_shape": shape}
    name = type(_original(denoiser)).__name__
    arrays = {leaf: _stored(leaf, value) for leaf, value in _leaves(denoiser).items()}
    return arrays, {"denoiser": name}


def _network_entries(network: Any) -> dict[str, Any]:
    """The entries of a `smcdiff.networks.unet.PatchedUNet`."""
    return {"network": dataclasses.asdict(network.unet.config), "patch": network.patch}


def _condition(denoiser: NetworkDenoiser) -> dict[str, Any]:
    """The class that was asked for, and how strongly."""
    if denoiser.label is None or int(denoiser.label) == denoiser.num_classes:
        return {}
    strength = None if denoiser.strength is None else float(denoiser.strength)
    return {"label": int(denoiser.label), "strength": strength}


def read_denoiser(folder: Path, config: Mapping[str, Any], template: Callable | None) -> Callable:
    """The denoiser that a folder describes.

    Args:
        folder: the folder.
        config: its configuration.
        template: a denoiser whose arrays are to be replaced, where the folder holds no network of
            this package.

    Raises:
        InputError: a template that is missing, not wanted, or of another structure; weights that do
            not fit. What a wrong entry makes Python raise.
    """
    if "denoiser" in config:
        if template is None:
            raise InputError(
                f"{folder}: holds the arrays of a denoiser of your own ({config['denoiser']}), but"
                " not its code; build one like it: load_prior(folder, denoiser=...)"
            )
        return _with_arrays(folder, template, read_arrays(folder, config))
    if template is not None:
        raise InputError(f"{folder}: holds its own network; leave denoiser= out")
    weights = read_weights(folder, config)
    if "low_shape" in config:
        return read_upsampling_denoiser(folder, config, weights)
    if "text" in config:
        return read_text_denoiser(folder, config, weights)
    if "observation_shape" not in config:
        return _unet_denoiser(config, weights)
    observation = jnp.asarray(weights.pop(_OBSERVATION))
    graph, state = build_conditional(config, weights)
    return ObservationDenoiser(state, observation, graph)


def _unet_denoiser(config: Mapping[str, Any], weights: Arrays) -> NetworkDenoiser:
    from flax import nnx

    from smcdiff.networks.unet import PatchedUNet, UNet2D, UNet2DConfig, load_state_dict

    network = UNet2DConfig.from_dict(config["network"])
    unet = nnx.eval_shape(lambda: UNet2D(network, rngs=nnx.Rngs(0)))
    load_state_dict(unet, weights)
    num_classes = (network.num_class_embeds or 1) - 1
    denoiser = NetworkDenoiser.wrap(PatchedUNet(unet, config["patch"]), num_classes)
    return denoiser.given(config["label"], config["strength"]) if "label" in config else denoiser


def _original(denoiser: Any) -> Any:
    """What the user gave: `portable` hides it behind its arrays."""
    is_hidden = isinstance(denoiser, Portable)
    return denoiser.rest.rebuild(denoiser.arrays) if is_hidden else denoiser


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float)


def _leaves(denoiser: Any) -> dict[str, Any]:
    """The numbers of a denoiser's pytree, by their places."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(_original(denoiser))
    return {jax.tree_util.keystr(path): leaf for path, leaf in pairs if _is_number(leaf)}


def _stored(name: str, leaf: Any) -> np.ndarray:
    """The array that is written for a leaf; safetensors reads no short floats but float16."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise InputError(
            f"the denoiser's '{name}' is a random key; store jax.random.key_data of it instead"
        )
    array = np.asarray(leaf)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _with_arrays(folder: Path, template: Callable, arrays: Arrays) -> Any:
    """The template with the arrays of the folder in the places of its own."""
    template = _original(portable(template))
    pairs, structure = jax.tree_util.tree_flatten_with_path(template)
    own = {leaf: _stored(leaf, value) for leaf, value in _leaves(template).items()}
    for name in sorted({*own, *arrays}):
        found, wanted = (_brief(values.get(name)) for values in (own, arrays))
        if found != wanted:
            raise InputError(
                f"{folder}: the denoiser does not fit: its '{name}' is {found}, and in the folder"
                f" {wanted}; build it as it was when the prior was saved"
            )
    leaves = [_restored(leaf, arrays.get(jax.tree_util.keystr(path))) for path, leaf in pairs]
    return jax.tree.unflatten(structure, leaves)


def _brief(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype}{list(array.shape)}"


def _restored(leaf: Any, array: np.ndarray | None) -> Any:
    """The stored value in the type of the template's leaf."""
    if array is None:
        return leaf
    if isinstance(leaf, bool | int | float):
        return type(leaf)(array.item())
    return jnp.asarray(array, leaf.dtype) if isinstance(leaf, jax.Array) else array
