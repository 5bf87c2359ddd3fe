"""A network that attends to a caption, as the denoiser of a prior; in a folder and out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.base._numbers import Scalar
from smcdiff.base.module import Module, static
from smcdiff.diffusion import schedules
from smcdiff.store._captions import UNITS, CaptionReader
from smcdiff.store._network_functions import parameters
from smcdiff.text.embedding import TextEmbedding

if TYPE_CHECKING:
    from flax import nnx

_READER, _TEXT = "reader.", "text."
"""First parts of the names of arrays that are no parameters of the network."""


class TextDenoiser(Module):
    """A Flax network and a caption as the denoiser of a `DiffusionPrior`.

    Attributes:
        state: the parameters.
        reader: of captions.
        graph: the network without its parameters.
        text: the caption as the network sees it; None is the null caption.
        strength: of classifier-free guidance by that caption, or None for the caption alone.
    """

    state: Any
    reader: CaptionReader
    graph: Any = static()
    text: TextEmbedding | None = None
    strength: Float[Array, ""] | float | None = None

    @classmethod
    def wrap(cls, network: nnx.Module, reader: CaptionReader) -> TextDenoiser:
        """From a network called as ``network(images, timesteps, text)``, timesteps to 1000."""
        from flax import nnx

        graph, state = nnx.split(network)
        return cls(state, reader, graph)

    def given(self, condition: str | TextEmbedding, strength: Scalar | None = None) -> TextDenoiser:
        """The denoiser of one caption, or guided by it.

        Raises:
            InputError: a caption that cannot be read, see `CaptionReader.read`.
        """
        return dataclasses.replace(self, text=self.reader.read(condition), strength=strength)

    def __call__(self, x: Float[Array, "h w c"], t: Scalar) -> Float[Array, "h w c"]:
        """The raw output for one image; t in the schedule's time."""
        from flax import nnx

        network = nnx.merge(self.graph, self.state)
        times = schedules.TIMESTEPS * jnp.asarray(t, x.dtype)[None]
        if self.strength is None or self.text is None:
            text = self.null_caption() if self.text is None else self.text
            return self.outputs(network, x[None], times, _stacked(text))[0]
        captions = _stacked(hidden(self.text), self.text)
        both = jnp.stack([x, x]), jnp.repeat(times, 2)
        plain, given = self.outputs(network, *both, captions)
        return plain + self.strength * (given - plain)

    def null_caption(self) -> TextEmbedding:
        """No caption, as the network takes it."""
        return self.reader.none()

    def outputs(
        self, network: Any, images: Float[Array, "b h w c"], times: Array, text: TextEmbedding
    ) -> Float[Array, "b h w c"]:
        """What the network makes of a batch."""
        return network(images, times, text)


def hidden(text: TextEmbedding) -> TextEmbedding:
    """The null caption, in as many tokens: what is masked whole has no pooled vector either."""
    return dataclasses.replace(text, mask=jnp.zeros_like(text.mask))


def _stacked(*texts: TextEmbedding) -> TextEmbedding:
    return jax.tree.map(lambda *parts: jnp.stack(parts), *texts)


def describe_text_denoiser(
    denoiser: TextDenoiser,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a denoiser, and the entries that say how to build it again."""
    from flax import nnx

    network = nnx.merge(denoiser.graph, denoiser.state)
    arrays, entries = parameters(network.unet), {
        "network": dataclasses.asdict(network.unet.config),
        "patch": network.patch,
    }  # fmt: skip
    reader, text = denoiser.reader, denoiser.text
    if reader is not None:
        arrays |= {_READER + k: v for k, v in reader.arrays().items()}
        entries["text"] = reader.entries()
    if text is not None:
        # As floats, for a network's arrays are all floats.
        arrays |= {_TEXT + k: np.asarray(v, np.float32) for k, v in vars(text).items()}
        entries["strength"] = None if denoiser.strength is None else float(denoiser.strength)
    return arrays, entries


def read_text_denoiser(
    folder: Path, config: Mapping[str, Any], weights: dict[str, np.ndarray]
) -> TextDenoiser:
    """The denoiser that a folder describes.

    Raises:
        InputError: weights that do not fit. What a wrong entry makes Python raise.
    """
    from flax import nnx

    from smcdiff.networks.unet import PatchedUNet, load_state_dict
    from smcdiff.networks.unet_condition import UNet2DCondition, UNet2DConditionConfig

    weights = dict(weights)
    reader = pop_reader(folder, config, weights)
    caption = pop_caption(config, weights)
    network = UNet2DConditionConfig.from_dict(config["network"])
    unet = nnx.eval_shape(lambda: UNet2DCondition(network, rngs=nnx.Rngs(0)))
    load_state_dict(unet, weights)
    denoiser = TextDenoiser.wrap(PatchedUNet(unet, config["patch"]), reader)
    return dataclasses.replace(denoiser, **caption)


def pop_reader(
    folder: Path, config: Mapping[str, Any], weights: dict[str, np.ndarray]
) -> CaptionReader:
    """The reader that a folder describes; its arrays are taken out of the weights."""
    units = {name: weights.pop(_READER + name) for name in UNITS}
    return CaptionReader.from_entries(config["text"], units, folder)


def pop_caption(config: Mapping[str, Any], weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """Fields of the caption that was given, if any; its arrays are taken out of the weights."""
    if _TEXT + "mask" not in weights:
        return {}
    states, mask, pooled = (weights.pop(_TEXT + k) for k in ("states", "mask", "pooled"))
    text = TextEmbedding(jnp.asarray(states), jnp.asarray(mask > 0.5), jnp.asarray(pooled))
    return {"text": text, "strength": config["strength"]}


def without_captions(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters of the network alone, of all that model.safetensors holds."""
    others = (_READER, _TEXT)
    return {name: value for name, value in weights.items() if not name.startswith(others)}
