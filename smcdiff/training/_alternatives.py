"""Held-out pictures scored against declared alternatives, and the temperature that fits them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from smcdiff.store.clip import Clip

_MOST = math.log(1e3)
"""Of the log temperature, either way."""
_IMAGES = 256
"""Scored at once."""


class Alternatives(NamedTuple):
    """Scores of pictures with their captions and with the alternatives to them.

    Attributes:
        scores: scaled cosines, a row per picture, the true caption first; -inf beyond the
            alternatives that a caption has.
    """

    scores: Float[np.ndarray, "n m"]

    @classmethod
    def of(
        cls,
        clip: Clip,
        images: Float[Array, "n h w c"],
        captions: Sequence[str],
        others: Sequence[Sequence[str]],
        times: Float[Array, " n"] | None = None,
    ) -> Alternatives:
        """Scores them.

        Args:
            clip: the towers.
            images: clean, or noisy at some times.
            captions: that of each picture.
            others: the alternatives to each.
            times: in the schedule's time, for a noise-conditional tower.
        """
        rows = [[caption, *rest] for caption, rest in zip(captions, others, strict=True)]
        every = list(dict.fromkeys(caption for row in rows for caption in row))
        place = {caption: index for index, caption in enumerate(every)}
        texts = np.asarray(clip.text(every))
        scores = np.full((len(rows), max(map(len, rows))), -np.inf)
        seen = image_vectors(clip, images, times)
        scale = float(clip.scale)
        for index, row in enumerate(rows):
            chosen = texts[[place[caption] for caption in row]]
            scores[index, : len(row)] = scale * (chosen @ seen[index])
        return cls(scores)

    @property
    def accuracy(self) -> float:
        """Share of the pictures whose own caption scores above every alternative."""
        return float(np.mean(self.is_right))

    @property
    def is_right(self) -> np.ndarray:
        """Of which pictures the own caption scores above every alternative."""
        return self.scores[:, 0] > np.max(self.scores[:, 1:], axis=1, initial=-np.inf)

    def log_probabilities(self, temperature: float) -> Float[np.ndarray, "n m"]:
        """Softmax over the alternatives."""
        return log_softmax(self.scores / temperature, axis=1)

    def log_loss(self, temperature: float) -> float:
        """Mean of minus the log probability of the own caption, in nat."""
        return float(-np.mean(self.log_probabilities(temperature)[:, 0]))

    def temperature(self) -> float:
        """The temperature of the least log loss, where one more picture has a random caption.

        Without it a tower that makes no mistake would be believed without bound: its log loss
        falls for ever as the temperature does. Without alternatives it is 1.
        """
        if self.scores.shape[1] < 2:
            return 1.0

        def loss(log_temperature):
            found = self.log_probabilities(math.exp(log_temperature))
            is_there = np.isfinite(self.scores)
            random = np.sum(np.where(is_there, found, 0.0), axis=1) / np.sum(is_there, axis=1)
            return -np.mean(found[:, 0]) - np.mean(random) / len(found)

        best = minimize_scalar(loss, bounds=(-_MOST, _MOST), method="bounded")
        return math.exp(best.x)


def image_vectors(
    clip: Clip, images: Float[Array, "n h w c"], times: Float[Array, " n"] | None = None
) -> Float[np.ndarray, "n k"]:
    """Unit vectors of many pictures, some at once."""
    parts = []
    for start in range(0, len(images), _IMAGES):
        rows = slice(start, start + _IMAGES)
        at = None if times is None else times[rows]
        parts.append(np.asarray(clip.image(jnp.asarray(images[rows]), at)))
    return np.concatenate(parts)
