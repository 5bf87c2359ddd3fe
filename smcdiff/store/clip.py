"""Towers of pictures and captions: their functions, and their folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff.base._numbers import Scalar
from smcdiff.base.module import Module, static
from smcdiff.diffusion import schedules
from smcdiff.errors import InputError
from smcdiff.store import _folder as folders
from smcdiff.store._captions import UNITS, CaptionReader
from smcdiff.store._entries import read_schedule, schedule_entry
from smcdiff.store._network_functions import parameters
from smcdiff.store._picture_reader import PICTURE_UNITS, PictureReader
from smcdiff.store.image_features import load_image_features
from smcdiff.store.shipped import model_folder
from smcdiff.text.embedding import TextEmbedding

Times = Float[Array, "*b"] | Scalar
"""One for all pictures, or one a picture."""
KIND = "clip"
_READER = "reader."
_PICTURES = "pictures."
"""First parts of the names of arrays that are no parameters of the network."""


class Clip(Module):
    """How well pictures and captions fit (CLIP, Radford et al. 2021); see `smcdiff.load_clip`.

    Captions are given as a text, as a sequence of texts, or as a `TextEmbedding` of the encoder
    that it was trained with; one text takes no axis in the result. Pictures are one, (h, w, c), or
    a batch, in the units of the training.

    Attributes:
        state: the parameters.
        reader: of captions.
        temperature: what scores are divided by before they are probabilities, as fitted on
            held-out pairs; 1 is the scale of the training.
        schedule: of a noise-conditional tower the noise schedule; None for clean pictures.
        graph: the network without its parameters.
        event_shape: of a picture, (h, w, c).
        pictures: of towers on frozen features, how these are read; else None.
    """

    state: Any
    reader: CaptionReader
    temperature: Float[Array, ""]
    schedule: schedules.Schedule | None
    graph: Any = static()
    event_shape: tuple[int, ...] = static()
    pictures: PictureReader | None = None

    @property
    def scale(self) -> Float[Array, ""]:
        """What cosines are multiplied by: learned, and below 100."""
        return _merged(self).scale

    def image(self, x: Float[Array, "*b h w c"], t: Times | None = None) -> Float[Array, "*b k"]:
        """Unit vectors of pictures.

        Args:
            x: one picture, or a batch.
            t: of a noise-conditional tower the time of x_t = x in its schedule, one or one a
                picture; None is for clean pictures.

        Raises:
            InputError: pictures of another shape; a time, and the tower is of clean pictures.
        """
        self._check(x, t)
        batch = x if x.ndim == 4 else x[None]
        times = jnp.zeros(len(batch)) if t is None else jnp.broadcast_to(jnp.asarray(t), len(batch))
        seen = batch if self.pictures is None else self.pictures.seen(batch)
        vectors = _images(self, seen, schedules.TIMESTEPS * times.astype(batch.dtype))
        return vectors if x.ndim == 4 else vectors[0]

    def text(self, captions: str | Sequence[str] | TextEmbedding) -> Float[Array, "*n k"]:
        """Unit vectors of captions.

        Raises:
            InputError: a caption that cannot be read, an encoder that is missing or another one,
                or vectors of another size.
        """
        is_vectors = isinstance(captions, TextEmbedding)
        if isinstance(captions, str) or (is_vectors and captions.mask.ndim == 1):
            one = self.reader.read(captions)
            return _texts(self, jax.tree.map(lambda a: a[None], one))[0]
        return _texts(self, self.reader.read_several(captions))

    def score(
        self, image: Float[Array, "*b h w c"], captions: str | Sequence[str] | TextEmbedding
    ) -> Float[Array, "..."]:
        """Scaled cosines of clean pictures with captions.

        Returns:
            (n,) for a picture and n captions, (b, n) for b pictures; without the last axis for one
            text.

        Raises:
            InputError: what `image` and `text` raise.
        """
        return self.scale * (self.image(image) @ self.text(captions).T)

    def log_probability(
        self,
        image: Float[Array, "*b h w c"],
        alternatives: Sequence[str] | TextEmbedding,
        temperature: Scalar | None = None,
    ) -> Float[Array, "*b n"]:
        """Log probability of each of some declared alternatives: that it is the picture's caption.

        A softmax of the scores over the temperature. It means nothing for a picture that none of
        the alternatives describes.

        Args:
            image: clean pictures.
            alternatives: n captions, of which one is right.
            temperature: None is the one that was fitted on held-out pairs.

        Raises:
            InputError: what `image` and `text` raise; a single caption.
        """
        texts = self.text(alternatives)
        if texts.ndim != 2:
            raise InputError("clip: alternatives are one caption; give a list of several")
        scores = self.scale * (self.image(image) @ texts.T)
        return jax.nn.log_softmax(scores / self._temperature(temperature), axis=-1)

    def given(
        self,
        caption: str,
        alternatives: Sequence[str],
        temperature: Scalar | None = None,
    ) -> CaptionLogProb:
        """What `smcdiff.proposals.ClassifierGuidance` takes, of a noise-conditional tower.

        Args:
            caption: the right one.
            alternatives: those that it is told apart from.
            temperature: see `log_probability`.

        Raises:
            InputError: what `text` raises; a tower of clean pictures.
        """
        if self.schedule is None:
            raise InputError(
                "clip: this tower knows clean pictures only; train one of noisy ones with"
                " `smcdiff train clip --noise-conditional`, or weigh by log_probability"
            )
        texts = self.text([caption, *(other for other in alternatives if other != caption)])
        return CaptionLogProb(self, self.scale * texts / self._temperature(temperature))

    def _temperature(self, temperature: Scalar | None) -> Array:
        return self.temperature if temperature is None else jnp.asarray(temperature)

    def _check(self, x: Array, t: Any) -> None:
        if x.ndim not in (3, 4) or x.shape[-3:] != self.event_shape:
            raise InputError(
                f"clip: pictures have shape {x.shape}; this tower takes {self.event_shape}, one or"
                " a batch"
            )
        if t is not None and self.schedule is None:
            raise InputError(
                "clip: a time is given, but this tower was trained on clean pictures; leave t out,"
                " or train one with `smcdiff train clip --noise-conditional`"
            )


class CaptionLogProb(Module):
    """Log probability of one caption among alternatives, of noisy pictures.

    Attributes:
        clip: the towers.
        texts: (n, k) vectors of the caption, first, and of the alternatives, scaled.
    """

    clip: Clip
    texts: Float[Array, "n k"]

    @property
    def schedule(self) -> schedules.Schedule | None:
        """The noise schedule of the tower, which the prior must share."""
        return self.clip.schedule

    def __call__(self, x: Float[Array, "h w c"], t: Scalar) -> Float[Array, ""]:
        """Log p(caption given x_t = x, and that one of the alternatives is right)."""
        return jax.nn.log_softmax(self.texts @ self.clip.image(x, t))[0]


def _merged(clip: Clip) -> Any:
    from flax import nnx

    return nnx.merge(clip.graph, clip.state)


@jax.jit
def _images(
    clip: Clip, x: Float[Array, " b *seen"], timesteps: Float[Array, " b"]
) -> Float[Array, "b k"]:
    return _merged(clip).image(x, timesteps)


@jax.jit
def _texts(clip: Clip, text: TextEmbedding) -> Float[Array, "n k"]:
    return _merged(clip).text(text)


def save_clip(clip: Clip, folder: Path, card: str, about: Mapping[str, Any]) -> Path:
    """Writes towers as a folder that `load_clip` reads.

    Frozen features are not written, but which ones they are.

    Args:
        clip: the towers.
        folder: where.
        card: text of card.md.
        about: more entries of config.json.

    Returns:
        The folder.

    Raises:
        InputError: a folder that is taken or cannot be written.
    """
    network = _merged(clip)
    arrays = parameters(network)
    arrays |= {_READER + name: array for name, array in clip.reader.arrays().items()}
    pictures = clip.pictures
    if pictures is not None:
        arrays |= {_PICTURES + name: array for name, array in pictures.arrays().items()}
    entries = {
        "kind": KIND,
        **about,
        **network.config.entries(),
        "image_features": None if pictures is None else pictures.entries(),
        "schedule": None if clip.schedule is None else schedule_entry(clip.schedule),
        "temperature": float(clip.temperature),
        "text": clip.reader.entries(),
    }
    return folders.write_model(folder, arrays, card, entries)


def load_clip(path: str | os.PathLike) -> Clip:
    """Loads towers of pictures and captions that `smcdiff train clip` wrote.

    Args:
        path: their folder, or the name of towers that ship: "shapes-clip".

    Returns:
        The towers. Captions that were encoded for the training are read from the folder; others
        need the text encoder, and another one than that of the training is refused; and so are
        other frozen features of pictures, where the towers stand on such.

    Raises:
        InputError: no such folder, or one that is incomplete, damaged or of another kind; towers
            on frozen features whose package is missing (the message has the command that installs
            it) or has others.
    """
    folder = model_folder(path, KIND)
    config = folders.read_config(folder, KIND)
    frozen = config.get("image_features")  # not in folders of before
    features = None if frozen is None else load_image_features()
    with folders.understanding(folder):
        temperature, schedule = config["temperature"], config["schedule"]
        if not 0.0 < temperature < np.inf:
            raise ValueError(f"temperature is {temperature}")
        weights = folders.read_weights(folder, config)
        of_captions = {name: weights.pop(_READER + name) for name in UNITS}
        if (features is None) != (config["network"] is not None):
            raise ValueError("there must be a network or image_features, and not both")
        pictures = None
        if frozen is not None and features is not None:
            of_pictures = {name: weights.pop(_PICTURES + name) for name in PICTURE_UNITS}
            pictures = PictureReader.from_entries(frozen, of_pictures, features, folder)
        graph, state = _network(config, weights)
        return Clip(
            state, CaptionReader.from_entries(config["text"], of_captions, folder),
            jnp.asarray(temperature), None if schedule is None else read_schedule(schedule),
            graph, tuple(config["event_shape"]), pictures,
        )  # fmt: skip


def _network(config: Mapping[str, Any], weights: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """The graph and the parameters of a configuration."""
    from flax import nnx

    from smcdiff.networks._clip import ClipConfig, ClipNetwork
    from smcdiff.networks.unet import load_state_dict

    made = ClipConfig.from_entries(config)
    module = nnx.eval_shape(lambda: ClipNetwork(made, rngs=nnx.Rngs(0)))
    load_state_dict(module, weights)
    return nnx.split(module)
