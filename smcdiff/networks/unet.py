"""The U-Net of diffusers' ``UNet2DModel``, in Flax NNX.

Configuration keys, blocks and parameter names are those of that model, so that its checkpoints can
be read and written; `state_dict` and `load_state_dict` convert the layouts (OIHW and (out, in)
there, HWIO and (in, out) here). `PatchedUNet` folds 2 x 2 pixels into channels first, which a CPU
needs, and which leaves the inner model as it is.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Int

from smcdiff.errors import InputError
from smcdiff.networks._blocks import Stage, UNetEnds

_Config = TypeVar("_Config", bound="UNet2DConfig")


@dataclasses.dataclass(frozen=True)
class UNet2DConfig:
    """Configuration, with the names and meanings of diffusers' ``UNet2DModel``."""

    sample_size: int
    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: int = 1
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D")
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "UpBlock2D")
    norm_num_groups: int = 8
    norm_eps: float = 1e-5
    attention_head_dim: int = 16
    freq_shift: int = 0
    flip_sin_to_cos: bool = True
    act_fn: str = "silu"
    add_attention: bool = True
    num_class_embeds: int | None = None

    @classmethod
    def from_dict(cls: type[_Config], values: dict) -> _Config:
        """From the dictionary of a config.json; keys of other settings are refused.

        Raises:
            InputError: unknown keys, or an activation other than SiLU.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(f"UNet2D config: unknown keys {unknown}; known are {sorted(known)}")
        kwargs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v
                                  for k, v in values.items()}  # fmt: skip
        config = cls(**kwargs)
        if config.act_fn != "silu":
            raise InputError(f"UNet2D config: act_fn is '{config.act_fn}'; only 'silu' is known")
        return config


class UNet2D(UNetEnds):
    """The U-Net; see the module."""

    def __init__(self, config: UNet2DConfig, *, rngs: nnx.Rngs):
        """Random weights."""
        super().__init__(config, rngs=rngs)
        channels, depth = config.block_out_channels, config.layers_per_block
        embedding = 4 * channels[0]
        if config.num_class_embeds is not None:
            self.class_embedding = nnx.Embed(config.num_class_embeds, embedding, rngs=rngs)
        last = len(channels) - 1
        previous, down = channels[0], []
        for index, (size, kind) in enumerate(zip(channels, config.down_block_types, strict=True)):
            sizes = [previous] + [size] * (depth - 1)
            attention = depth if kind.startswith("Attn") else 0
            resample = "down" if index < last else None
            down.append(
                Stage(sizes, size, embedding, config, attention=attention, resample=resample,
                      rngs=rngs)
            )  # fmt: skip
            previous = size
        self.down_blocks = nnx.List(down)
        self.mid_block = Stage(
            [previous] * 2, previous, embedding, config,
            attention=int(config.add_attention), resample=None, rngs=rngs,
        )  # fmt: skip
        skips = [channels[0]]
        for index, size in enumerate(channels):
            skips += [size] * (depth + (index < last))
        up = []
        for index, (size, kind) in enumerate(
            zip(channels[::-1], config.up_block_types, strict=True)
        ):
            inputs = [previous] + [size] * depth
            sizes = [own + skips.pop() for own in inputs]
            attention = depth + 1 if kind.startswith("Attn") else 0
            resample = "up" if index < last else None
            up.append(
                Stage(sizes, size, embedding, config, attention=attention, resample=resample,
                      rngs=rngs)
            )  # fmt: skip
            previous = size
        self.up_blocks = nnx.List(up)
        self.make_output(rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        timesteps: Float[Array, " b"],
        class_labels: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b h w o"]:
        """The network's output.

        Args:
            x: (b, h, w, in_channels).
            timesteps: (b,), on DDPM's scale of 0 to 1000.
            class_labels: (b,), below ``num_class_embeds``; given if and only if that is set.

        Returns:
            (b, h, w, out_channels).

        Raises:
            InputError: labels without class embeddings, or none with them.
        """
        config, embedding = self.config, self.embed(timesteps)
        if (class_labels is None) != (config.num_class_embeds is None):
            raise InputError(
                f"UNet2D: num_class_embeds is {config.num_class_embeds}, but class_labels are"
                f" {'missing' if class_labels is None else 'given'}"
            )
        if class_labels is not None:
            embedding = embedding + self.class_embedding(class_labels)
        x = self.conv_in(x)
        skips = [x]
        for stage in self.down_blocks:
            for index in range(len(stage.resnets)):
                x = stage.layer(index, x, embedding)
                skips.append(x)
            if hasattr(stage, "downsamplers"):
                x = stage.downsamplers[0](x)
                skips.append(x)
        for index in range(2):
            x = self.mid_block.layer(index, x, embedding)
        for stage in self.up_blocks:
            for index in range(len(stage.resnets)):
                x = stage.layer(index, jnp.concatenate([x, skips.pop()], axis=-1), embedding)
            if hasattr(stage, "upsamplers"):
                x = stage.upsamplers[0](x)
        return self.output(x)


def fold(x: Float[Array, "b h w c"], patch: int) -> Array:
    """Images with ``patch`` x ``patch`` pixels folded into channels.

    The channel order is that of PyTorch's ``pixel_unshuffle``.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // patch, width // patch
    folded = x.reshape(batch, rows, patch, columns, patch, channels)
    return folded.transpose(0, 1, 3, 5, 2, 4).reshape(batch, rows, columns, -1)


def unfold(x: Float[Array, "b h w c"], patch: int) -> Array:
    """The inverse of `fold`."""
    batch, rows, columns, _ = x.shape
    pixels = x.reshape(batch, rows, columns, -1, patch, patch).transpose(0, 1, 4, 2, 5, 3)
    return pixels.reshape(batch, rows * patch, columns * patch, -1)


class PatchedUNet(nnx.Module):
    """A U-Net on images whose ``patch`` x ``patch`` pixels are folded into channels."""

    def __init__(self, unet: nnx.Module, patch: int):
        """The inner model, and the patch size (1 leaves the image as it is)."""
        self.unet = unet
        self.patch = patch

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        timesteps: Float[Array, " b"],
        condition: Any = None,
    ) -> Float[Array, "b h w o"]:
        """(b, h, w, c) images to outputs of their size; ``condition`` is what the U-Net takes."""
        return unfold(self.unet(fold(x, self.patch), timesteps, condition), self.patch)


def _names(path: tuple) -> str:
    last = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(path[-1], path[-1])
    return ".".join(str(part) for part in (*path[:-1], last))


def _permutation(path: tuple, ndim: int) -> tuple[int, ...]:
    """Axes of the PyTorch layout in terms of ours."""
    if path[-1] == "kernel":
        return (3, 2, 0, 1) if ndim == 4 else (1, 0)
    return tuple(range(ndim))


def _parameters(network: nnx.Module) -> dict[tuple, Any]:
    return traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(network, nnx.Param)))


def state_dict(network: nnx.Module) -> dict[str, np.ndarray]:
    """The parameters under diffusers' names and in PyTorch's layouts."""
    return {
        _names(path): np.ascontiguousarray(np.transpose(leaf, _permutation(path, leaf.ndim)))
        for path, leaf in _parameters(network).items()
    }


def load_state_dict(network: nnx.Module, weights: dict[str, np.ndarray]) -> None:
    """Puts parameters with diffusers' names into the model.

    Args:
        network: the model; it may be abstract (``nnx.eval_shape``).
        weights: name -> array in PyTorch's layout.

    Raises:
        InputError: missing or unexpected names, or shapes that do not fit.
    """
    parameters = _parameters(network)
    names = {_names(path): path for path in parameters}
    if missing := sorted(set(names) - set(weights)):
        raise InputError(f"weights: {len(missing)} parameters are missing, first '{missing[0]}'")
    if extra := sorted(set(weights) - set(names)):
        raise InputError(f"weights: {len(extra)} unexpected parameters, first '{extra[0]}'")
    for name, path in names.items():
        own = parameters[path]
        order = np.argsort(_permutation(path, len(own.shape)))
        value = np.transpose(weights[name], order)
        if value.shape != own.shape:
            raise InputError(
                f"weights: '{name}' has shape {weights[name].shape}, which the configuration does"
                " not give"
            )
        parameters[path] = jnp.asarray(value, own.dtype)
    state = nnx.state(network, nnx.Param)
    nnx.replace_by_pure_dict(state, traverse_util.unflatten_dict(parameters))
    nnx.update(network, state)
