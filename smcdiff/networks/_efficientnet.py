"""EfficientNet-Lite0 without its last layer (Tan and Le 2019), for features of frozen weights.

Depthwise separable convolutions with ReLU6 and no squeeze-and-excitation, padded as TensorFlow's
"SAME" does. The batch norms are folded into the convolutions before them, so that a convolution has
a kernel and a bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

HEAD = 1280
"""Channels of the last convolution."""
_STEM, _NORM_EPS = 32, 1e-3
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


class _Stage(NamedTuple):
    """Blocks in a row; the first of them has the stride, and changes the channels."""

    repeats: int
    width: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_MIDDLE = (2, 4)
"""Stages whose means are features, too."""
NUM_FEATURES = HEAD + sum(_STAGES[stage].channels for stage in _MIDDLE)


def _conv(size: int, out: int, width: int, stride: int = 1, *, rngs: nnx.Rngs, **options: Any):
    return nnx.Conv(size, out, (width, width), strides=stride, padding="SAME", rngs=rngs, **options)


class _Block(nnx.Module):
    """Expanded to more channels, convolved each for itself, and brought to fewer."""

    def __init__(self, size: int, stage: _Stage, stride: int, *, rngs: nnx.Rngs):
        """Random weights."""
        inner = size * stage.expansion
        if inner != size:
            self.expand = _conv(size, inner, 1, rngs=rngs)
        self.depthwise = _conv(
            inner, inner, stage.width, stride, rngs=rngs, feature_group_count=inner
        )
        self.project = _conv(inner, stage.channels, 1, rngs=rngs)
        self.is_residual = stride == 1 and size == stage.channels
        self.is_expanded = inner != size

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b j k o"]:
        """Of a batch."""
        inner = jax.nn.relu6(self.expand(x)) if self.is_expanded else x
        out = self.project(jax.nn.relu6(self.depthwise(inner)))
        return x + out if self.is_residual else out


class EfficientNetLite0(nnx.Module):
    """The network; see the module."""

    def __init__(self, *, rngs: nnx.Rngs):
        """Random weights."""
        self.stem = _conv(3, _STEM, 3, 2, rngs=rngs)
        size, blocks = _STEM, []
        for stage in _STAGES:
            for repeat in range(stage.repeats):
                blocks.append(_Block(size, stage, 1 if repeat else stage.stride, rngs=rngs))
                size = stage.channels
        self.blocks = nnx.List(blocks)
        self.head = _conv(size, HEAD, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b k"]:
        """Features of pictures in the units of the training: of the head, and of two stages."""
        x, means, first = jax.nn.relu6(self.stem(x)), [], 0
        for index, stage in enumerate(_STAGES):
            for block in self.blocks[first : first + stage.repeats]:
                x = block(x)
            first += stage.repeats
            if index in _MIDDLE:
                means.append(_mean(x))
        return jnp.concatenate([_mean(jax.nn.relu6(self.head(x))), *means], axis=1)


def _mean(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    return jnp.mean(x, axis=(1, 2))


def folded(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ``load_state_dict`` takes, from the tensors of PyTorch's model.

    Args:
        weights: with the names of the package efficientnet-lite-pytorch, and in PyTorch's layouts;
            the classifier's are left aside.

    Returns:
        Kernels and biases, float32.
    """
    convolutions = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for block in range(sum(stage.repeats for stage in _STAGES)):
        parts = {"depthwise": "_bn1", "project": "_bn2"}
        if f"_blocks.{block}._expand_conv.weight" in weights:
            parts["expand"] = "_bn0"
        for part, norm in parts.items():
            place = f"_blocks.{block}."
            convolutions[f"blocks.{block}.{part}"] = f"{place}_{part}_conv", f"{place}{norm}"
    arrays = {}
    for name, (convolution, norm) in convolutions.items():
        kernel, bias = _folded(weights, convolution, norm)
        arrays |= {f"{name}.weight": kernel, f"{name}.bias": bias}
    return arrays


def _folded(
    weights: Mapping[str, np.ndarray], convolution: str, norm: str
) -> tuple[np.ndarray, np.ndarray]:
    """One convolution with its norm; in double precision, for rounding comes last."""
    kernel, scale, bias, mean, variance = (
        weights[name].astype(np.float64)
        for name in (f"{convolution}.weight", *(f"{norm}.{part}" for part in _NORM_PARTS))
    )
    scale = scale / np.sqrt(variance + _NORM_EPS)
    kernel = kernel * scale[:, None, None, None]
    return kernel.astype(np.float32), (bias - mean * scale).astype(np.float32)
