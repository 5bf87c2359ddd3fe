"""How towers on frozen features see pictures: by which features, and in which units."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.base.module import Module
from smcdiff.errors import InputError
from smcdiff.store._captions import mean_and_std, standardised
from smcdiff.store.image_features import ImageFeatures

EFFICIENTNET = "efficientnet-lite0"
"""The one name of frozen features, those of `smcdiff.load_image_features`."""


class PictureReader(Module):
    """Pictures as a network on frozen features was trained to see them.

    Attributes:
        features: the frozen network.
        mean: of the features of the training's pictures.
        std: their standard deviation.
    """

    features: ImageFeatures
    mean: Float[Array, " k"]
    std: Float[Array, " k"]

    @classmethod
    def of(cls, features: ImageFeatures, values: Float[np.ndarray, "n k"]) -> PictureReader:
        """In the units of the features of some pictures."""
        mean, std = mean_and_std(values)
        return cls(features, jnp.asarray(mean), jnp.asarray(std))

    def seen(self, images: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        """Features of pictures in [-1, 1], in standard units."""
        return self.standard(self.features(images))

    def standard(self, values: Float[Array, "b k"]) -> Float[Array, "b k"]:
        """Features in standard units."""
        return standardised(values, self.mean, self.std)

    def entries(self) -> dict[str, Any]:
        """As config.json holds it."""
        return {
            "name": EFFICIENTNET,
            "weights": self.features.weights,
            "size": self.features.size,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """As model.safetensors holds them."""
        return {name: np.asarray(getattr(self, name)) for name in PICTURE_UNITS}

    @classmethod
    def from_entries(
        cls,
        entry: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        features: ImageFeatures,
        folder: Path,
    ) -> PictureReader:
        """From what `entries` and `arrays` gave.

        Args:
            entry: of config.json.
            arrays: by their names.
            features: of `load_image_features`.
            folder: of the model, for messages.

        Raises:
            InputError: other features than those of the training.
            KeyError: an entry or an array is missing.
            ValueError: features of a name or a size that is not known.
        """
        name, weights, size = entry["name"], entry["weights"], entry["size"]
        if name != EFFICIENTNET:
            raise ValueError(f"no image features '{name}'")
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"the size of pictures for image features is {size}")
        if features.weights != weights:
            raise InputError(
                f"{folder}: made with frozen image features whose weights have sha256"
                f" {str(weights)[:8]}..., and this smcdiff has those of {features.weights[:8]}...;"
                " take the smcdiff that trained them"
            )
        sized = dataclasses.replace(features, size=size)
        return cls(sized, *(jnp.asarray(arrays[unit]) for unit in PICTURE_UNITS))


PICTURE_UNITS = ("mean", "std")
"""Names of the arrays of a `PictureReader`."""
