"""A network that is given a low resolution, as a prior's denoiser; in a folder and out of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.base._numbers import Scalar
from smcdiff.cascades import LowResolution
from smcdiff.errors import InputError
from smcdiff.store._captions import CaptionReader
from smcdiff.store._text_denoiser import (
    TextDenoiser,
    describe_text_denoiser,
    pop_caption,
    pop_reader,
)
from smcdiff.text.embedding import TextEmbedding

if TYPE_CHECKING:
    from flax import nnx

_LOW = "low.image"


class UpsamplingDenoiser(TextDenoiser):
    """A Flax network, a low resolution and perhaps a caption as the denoiser of a `DiffusionPrior`.

    Attributes:
        reader: of captions; None where the network was trained without.
        low: as the network sees it; grey until it is `given`.
    """

    reader: CaptionReader | None
    low: LowResolution = dataclasses.field(kw_only=True)

    @classmethod
    def wrap_upsampler(
        cls, network: nnx.Module, reader: CaptionReader | None, low_shape: tuple[int, ...]
    ) -> UpsamplingDenoiser:
        """From a network called as ``network(images, timesteps, low, log_snr, text)``."""
        from flax import nnx

        graph, state = nnx.split(network)
        return cls(state, reader, graph, low=_clean(jnp.zeros(low_shape)))

    def given(self, condition: Any, strength: Scalar | None = None) -> UpsamplingDenoiser:
        """The denoiser of a low resolution, or of a caption; both by one call for each.

        Args:
            condition: a `LowResolution`; an array, which is one without noise; or a caption.
            strength: of guidance by the caption.

        Raises:
            InputError: a low resolution of another shape; a caption that cannot be read, or for a
                network that was trained without.
        """
        if isinstance(condition, str | TextEmbedding):
            if self.reader is None:
                raise InputError(
                    "this upsampler takes no caption; train one with `smcdiff train upsampler"
                    " --captioned`, or give the caption to the base alone"
                )
            return dataclasses.replace(self, text=self.reader.read(condition), strength=strength)
        if strength is not None:
            raise InputError(
                "this upsampler is given a low resolution with a strength of guidance; strength"
                " goes with the caption: upsampler.given(caption, strength).given(low)"
            )
        low = condition if isinstance(condition, LowResolution) else _clean(condition)
        if jnp.shape(low.image) != self.low.image.shape:
            raise InputError(
                f"the low resolution has shape {jnp.shape(low.image)}; this upsampler was trained"
                f" for {self.low.image.shape}"
            )
        return dataclasses.replace(
            self, low=LowResolution(jnp.asarray(low.image), jnp.asarray(low.log_snr, jnp.float32))
        )

    def null_caption(self) -> TextEmbedding:
        """No caption; of no tokens where the network knows none."""
        if self.reader is not None:
            return self.reader.none()
        from flax import nnx

        width = nnx.merge(self.graph, self.state).unet.config.cross_attention_dim
        return no_captions((), width)

    def outputs(
        self, network: Any, images: Float[Array, "b h w c"], times: Array, text: TextEmbedding
    ) -> Float[Array, "b h w c"]:
        """What the network makes of a batch, all of one low resolution."""
        count = images.shape[0]
        low = jnp.broadcast_to(self.low.image, (count, *self.low.image.shape))
        log_snr = jnp.broadcast_to(jnp.asarray(self.low.log_snr), (count,))
        return network(images, times, low, log_snr, text)


def no_captions(shape: tuple[int, ...], width: int) -> TextEmbedding:
    """Of no tokens, for a network that was trained without captions."""
    return TextEmbedding(
        jnp.zeros((*shape, 0, width)), jnp.zeros((*shape, 0), bool), jnp.zeros((*shape, 0))
    )


def _clean(image: Any) -> LowResolution:
    return LowResolution(jnp.asarray(image), jnp.asarray(math.inf))


def describe_upsampling_denoiser(
    denoiser: UpsamplingDenoiser,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a denoiser, and the entries that say how to build it again."""
    arrays, entries = describe_text_denoiser(denoiser)
    log_snr = float(denoiser.low.log_snr)
    arrays[_LOW] = np.asarray(denoiser.low.image)
    entries["low_shape"] = list(denoiser.low.image.shape)
    entries["low_log_snr"] = None if math.isinf(log_snr) else log_snr  # JSON knows no infinity
    return arrays, entries


def read_upsampling_denoiser(
    folder: Path, config: Mapping[str, Any], weights: dict[str, np.ndarray]
) -> UpsamplingDenoiser:
    """The denoiser that a folder describes.

    Raises:
        InputError: weights that do not fit. What a wrong entry makes Python raise.
    """
    from flax import nnx

    from smcdiff.networks._upsampling import UpsamplingUNet
    from smcdiff.networks.unet import load_state_dict
    from smcdiff.networks.unet_condition import UNet2DConditionConfig

    weights = dict(weights)
    image, shape = jnp.asarray(weights.pop(_LOW)), tuple(config["low_shape"])
    if image.shape != shape:
        raise ValueError(f"low_shape is {shape}, and '{_LOW}' has shape {image.shape}")
    reader = pop_reader(folder, config, weights) if "text" in config else None
    caption = pop_caption(config, weights)
    network = UNet2DConditionConfig.from_dict(config["network"])
    unet = nnx.eval_shape(lambda: UpsamplingUNet(network, config["patch"], rngs=nnx.Rngs(0)))
    load_state_dict(unet.unet, weights)
    denoiser = UpsamplingDenoiser.wrap_upsampler(unet, reader, shape)
    log_snr = math.inf if config["low_log_snr"] is None else config["low_log_snr"]
    return dataclasses.replace(
        denoiser, low=LowResolution(image, jnp.asarray(log_snr, jnp.float32)), **caption
    )
