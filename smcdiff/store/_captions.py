"""How a network of captions reads one: by which encoder, and in which units.

Encoders give vectors whose entries differ in size, and which hardly differ between captions of a
closed grammar (the cosine of two with their colours swapped is 0.99): the network sees them with
the mean over the captions of its training taken off, and divided by their standard deviation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smcdiff import shapes
from smcdiff.base.module import Module, static
from smcdiff.errors import InputError
from smcdiff.text._tokenizer import check_captions
from smcdiff.text.captions import EncodedCaptions
from smcdiff.text.embedding import TextEmbedding
from smcdiff.text.encoder import TextEncoder
from smcdiff.text.identity import EncoderIdentity
from smcdiff.text.load import load_text_encoder

CAPTIONS = "captions.safetensors"
"""Encoded captions in the folder of a model, which are read without the encoder."""
GRAMMARS = {"shapes": lambda caption: str(shapes.parse(caption))}
"""Closed grammars by name: what brings a caption into its form, or refuses it."""
_LEAST = 1e-2
"""Of the deviation of all entries: what an entry that never varies is divided by."""


class CaptionReader(Module):
    """Captions as a network was trained to see them.

    Attributes:
        states_mean: of the tokens of the training's captions.
        states_std: their standard deviation.
        pooled_mean: of the pooled vectors.
        pooled_std: their standard deviation.
        encoder: whose vectors they are.
        source: what `smcdiff.load_text_encoder` is given to read the encoder.
        num_tokens: shorter captions are padded to so many.
        grammar: of `GRAMMARS`, where captions are from a closed one.
        file: of `EncodedCaptions`, looked into before the encoder is loaded; or None.
    """

    states_mean: Float[Array, " width"]
    states_std: Float[Array, " width"]
    pooled_mean: Float[Array, " pooled_width"]
    pooled_std: Float[Array, " pooled_width"]
    encoder: EncoderIdentity = static()
    source: str = static()
    num_tokens: int = static()
    grammar: str | None = static(default=None)
    file: str | None = static(default=None)

    @classmethod
    def of(
        cls, encoded: EncodedCaptions, captions: Sequence[str], source: str, grammar: str | None
    ) -> CaptionReader:
        """In the units of some captions.

        Args:
            encoded: with these captions, and others.
            captions: over which mean and deviation are taken.
            source: what the encoder was loaded by.
            grammar: whose captions they are; None is any text.
        """
        text = encoded.lookup(captions, encoded.encoder)
        tokens, pooled = np.asarray(text.states)[np.asarray(text.mask)], np.asarray(text.pooled)
        parts = (*mean_and_std(tokens), *mean_and_std(pooled))
        units: dict[str, Any] = {
            name: jnp.asarray(part) for name, part in zip(UNITS, parts, strict=True)
        }
        return cls(
            **units, encoder=encoded.encoder, source=source, num_tokens=int(encoded.lengths.max()),
            grammar=grammar,
        )  # fmt: skip

    def seen(self, text: TextEmbedding) -> TextEmbedding:
        """Vectors of the encoder, for one caption or many, as the network sees them."""
        hidden = ~text.mask[..., None]
        states = standardised(text.states, self.states_mean, self.states_std)
        pooled = standardised(text.pooled, self.pooled_mean, self.pooled_std)
        return TextEmbedding(jnp.where(hidden, 0.0, states), text.mask, pooled)

    def read(self, caption: str | TextEmbedding) -> TextEmbedding:
        """One caption as the network sees it.

        Raises:
            InputError: a caption outside the grammar; an encoder that is missing or another one;
                vectors of another size, or of several captions.
        """
        if not isinstance(caption, str | TextEmbedding):
            raise InputError(
                f"this model takes a caption: give a text, or a TextEmbedding, not"
                f" {type(caption).__name__}"
            )
        if isinstance(caption, str):
            text = _only(self.encoded([caption]))
        else:
            text = self._checked(caption)
        return self.seen(self._padded(text))

    def read_several(self, captions: Sequence[str] | TextEmbedding) -> TextEmbedding:
        """Captions as the network sees them, n texts or a `TextEmbedding` with one axis before.

        Raises:
            InputError: what `read` raises; no captions, or vectors of a single one.
        """
        if not isinstance(captions, TextEmbedding):
            return self.seen(self._padded(self.encoded(captions)))
        wanted = self.states_mean.shape, self.pooled_mean.shape
        found = captions.states.shape[2:], captions.pooled.shape[1:]
        if found != wanted or captions.mask.ndim != 2:
            raise InputError(
                f"the TextEmbedding has states of shape {captions.states.shape} and pooled vectors"
                f" of {captions.pooled.shape}; give (n, tokens, {wanted[0][0]}) and"
                f" (n, {wanted[1][0]}), encoded by '{self.encoder.name}'"
            )
        return self.seen(self._padded(captions))

    def _padded(self, text: TextEmbedding) -> TextEmbedding:
        """To ``num_tokens``, for one length is compiled for."""
        missing = max(0, self.num_tokens - text.mask.shape[-1])
        before = ((0, 0),) * (text.mask.ndim - 1)
        states = jnp.pad(text.states, (*before, (0, missing), (0, 0)))
        return TextEmbedding(states, jnp.pad(text.mask, (*before, (0, missing))), text.pooled)

    def none(self) -> TextEmbedding:
        """No caption."""
        width, pooled_width = self.states_mean.shape[0], self.pooled_mean.shape[0]
        return TextEmbedding(
            jnp.zeros((0, width)), jnp.zeros((0,), bool), jnp.zeros((pooled_width,))
        )

    def encoded(self, captions: Sequence[str]) -> TextEmbedding:
        """The encoder's vectors of texts, out of the file or of the encoder.

        Raises:
            InputError: captions outside the grammar; an encoder that is missing or another one.
        """
        check_captions(captions)
        if self.grammar is not None:
            captions = [GRAMMARS[self.grammar](caption) for caption in captions]
        stored = None if self.file is None else _stored(self.file)
        if stored is not None and set(captions) <= set(stored.captions):
            return stored.lookup(captions, self.encoder)
        return self._load_encoder().encode(captions)

    def _load_encoder(self) -> TextEncoder:
        try:
            encoder = _loaded(self.source)
        except InputError as error:
            raise InputError(
                f"the caption must be encoded by '{self.encoder.name}', as those of the training"
                f" were: {error}"
            ) from error
        self.encoder.require(encoder.identity, "this model")
        return encoder

    def _checked(self, text: TextEmbedding) -> TextEmbedding:
        """One caption's vectors; the axis of a batch of one is taken off."""
        text = _only(text) if text.mask.ndim == 2 and len(text.mask) == 1 else text
        found = text.states.shape[1:], text.pooled.shape
        wanted = self.states_mean.shape, self.pooled_mean.shape
        if found != wanted or text.mask.ndim != 1:
            raise InputError(
                f"the TextEmbedding has states of shape {text.states.shape} and a pooled vector of"
                f" {text.pooled.shape}; this model takes one caption, of (tokens, {wanted[0][0]})"
                f" and {wanted[1]}, encoded by '{self.encoder.name}'"
            )
        return text

    def entries(self) -> dict[str, Any]:
        """As config.json holds it."""
        return {
            "encoder": self.encoder.entries(),
            "source": self.source,
            "num_tokens": self.num_tokens,
            "grammar": self.grammar,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """As model.safetensors holds them."""
        return {name: np.asarray(getattr(self, name)) for name in UNITS}

    @classmethod
    def from_entries(
        cls, entry: dict[str, Any], arrays: dict[str, np.ndarray], folder: Path
    ) -> CaptionReader:
        """From what `entries` and `arrays` gave.

        Args:
            entry: of config.json.
            arrays: by their names.
            folder: of the model, in which captions may lie.

        Raises:
            KeyError: an entry or an array is missing.
            ValueError: a grammar that is not known, or no number of tokens.
        """
        grammar, num_tokens = entry["grammar"], entry["num_tokens"]
        if grammar is not None and grammar not in GRAMMARS:
            raise ValueError(f"no grammar '{grammar}'")
        if not isinstance(num_tokens, int) or num_tokens < 1:
            raise ValueError(f"num_tokens is {num_tokens}")
        file = folder.resolve() / CAPTIONS
        units: dict[str, Any] = {name: jnp.asarray(arrays[name]) for name in UNITS}
        return cls(
            **units, encoder=EncoderIdentity.from_entries(entry["encoder"]), source=entry["source"],
            num_tokens=num_tokens, grammar=grammar,
            file=str(file) if file.is_file() else None,
        )  # fmt: skip


UNITS = tuple(f.name for f in dataclasses.fields(CaptionReader) if not f.metadata.get("static"))
"""Names of the arrays of a `CaptionReader`."""


def mean_and_std(values: Float[np.ndarray, "n k"]) -> tuple[np.ndarray, np.ndarray]:
    """Of each entry; the deviation is bounded from below, for some entries never vary."""
    std = values.std(axis=0)
    least = _LEAST * max(float(np.sqrt(np.mean(std**2))), np.finfo(np.float32).tiny)
    return values.mean(axis=0), np.maximum(std, least)


def standardised(values: Array, mean: Array, std: Array) -> Array:
    """Values in standard units along their last axis."""
    shape = (1,) * (values.ndim - 1) + mean.shape
    return (values - mean.reshape(shape)) / std.reshape(shape)


def _only(text: TextEmbedding) -> TextEmbedding:
    """The one caption of a batch of one."""
    return TextEmbedding(text.states[0], text.mask[0], text.pooled[0])


@functools.lru_cache(maxsize=2)
def _stored(file: str) -> EncodedCaptions:
    return EncodedCaptions.load(file)


@functools.lru_cache(maxsize=1)
def _loaded(source: str) -> TextEncoder:
    return load_text_encoder(source)
