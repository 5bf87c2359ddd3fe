"""`EncodedCaptions`: captions encoded once, and kept in a file.

A large encoder (that of T5-XXL has 4.8 G parameters) is read once, on a machine that holds it;
training and sampling then read the file. It holds the states of real tokens only, one caption's
after the other's, so that a caption can be padded to any length.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from smcdiff.base._files import check_file, write_whole
from smcdiff.base._progress import Progress
from smcdiff.errors import InputError, first_line
from smcdiff.text._tokenizer import check_captions
from smcdiff.text.embedding import TextEmbedding
from smcdiff.text.encoder import TextEncoder, longest
from smcdiff.text.identity import EncoderIdentity

FORMAT = "smcdiff-captions-1"
_KINDS = {"states": (2, "f"), "pooled": (2, "f"), "lengths": (1, "i"), "captions": (1, "u")}
"""Axes and kind of number of the arrays in a file."""


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedCaptions:
    """Captions with what a text encoder makes of them, on the host.

    Attributes:
        captions: n different texts.
        lengths: tokens of each.
        states: of all tokens, one caption's after the other's, float16 or float32.
        pooled: one vector per caption, float32.
        encoder: whose they are.
    """

    captions: tuple[str, ...]
    lengths: Int[np.ndarray, " n"]
    states: Float[np.ndarray, "total width"]
    pooled: Float[np.ndarray, "n pooled_width"]
    encoder: EncoderIdentity

    @classmethod
    def encode(
        cls,
        encoder: TextEncoder,
        captions: Sequence[str],
        *,
        dtype: type = np.float16,
        batch_size: int = 64,
        progress_bar: bool | Progress = True,
    ) -> EncodedCaptions:
        """Encodes captions, equal ones once.

        Args:
            encoder: the encoder.
            captions: texts.
            dtype: of the states, ``numpy.float16`` or ``numpy.float32``.
            batch_size: captions encoded at once.
            progress_bar: show progress; or a callable ``progress(t, num_steps, info)``.

        Raises:
            InputError: what `TextEncoder.encode` raises, another dtype, or states that do not fit
                into float16.
        """
        if dtype not in (np.float16, np.float32):
            raise InputError(f"dtype is {dtype}; give numpy.float16 or numpy.float32")
        check_captions(captions)
        captions = list(dict.fromkeys(captions))
        tokens = encoder.tokenizer.tokens(captions)
        states, pooled = [], []
        for batch in encoder.batches(tokens, batch_size, progress_bar):
            states.append(_short(np.asarray(batch.states)[np.asarray(batch.mask)], dtype))
            pooled.append(np.asarray(batch.pooled))
        lengths = np.array([len(ids) for ids in tokens], np.int32)
        return cls(
            tuple(captions), lengths, np.concatenate(states), np.concatenate(pooled),
            encoder.identity,
        )  # fmt: skip

    def lookup(
        self, captions: Sequence[str], encoder: EncoderIdentity, *, num_tokens: int | None = None
    ) -> TextEmbedding:
        """The embeddings of captions, as `TextEncoder.encode` gives them up to rounding.

        Args:
            captions: k texts, in any order and as often as one likes.
            encoder: the one that is wanted, for which a network was trained say:
                ``TextEncoder.identity``.
            num_tokens: pad to so many tokens; None is the longest of these captions.

        Returns:
            States (k, num_tokens, width), mask (k, num_tokens) and pooled vectors, all float32.

        Raises:
            InputError: another encoder; no captions, one that is not here, or one of more than
                ``num_tokens`` tokens.
        """
        self.encoder.require(encoder, f"{len(self.captions)} encoded captions")
        check_captions(captions)
        missing = [caption for caption in captions if caption not in self._rows]
        if missing:
            raise InputError(
                f"caption '{missing[0]}' is not among the {len(self.captions)} encoded ones"
                f" ({len(missing)} are missing); encode it with the others"
            )
        rows = np.array([self._rows[caption] for caption in captions])
        lengths = self.lengths[rows]
        most = longest(captions, lengths.tolist(), num_tokens)
        mask = np.arange(most)[None] < lengths[:, None]
        starts = (np.cumsum(self.lengths) - self.lengths)[rows]
        states = np.zeros((*mask.shape, self.states.shape[1]), np.float32)
        states[mask] = self.states[(starts[:, None] + np.arange(most)[None])[mask]]
        pooled = self.pooled[rows].astype(np.float32)
        return TextEmbedding(jnp.asarray(states), jnp.asarray(mask), jnp.asarray(pooled))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {caption: row for row, caption in enumerate(self.captions)}

    def save(self, path: str | os.PathLike) -> Path:
        """Writes a file, or replaces it, whole or not at all.

        Args:
            path: a safetensors file: ``states``, ``pooled``, ``lengths``, and in ``captions`` the
                bytes of a JSON list; format and encoder are its metadata.

        Returns:
            The path.

        Raises:
            InputError: it cannot be written.
        """
        from safetensors.numpy import save

        # As an array, for a safetensors header has room for 100 MB and is read at once.
        text = np.frombuffer(json.dumps(self.captions).encode(), np.uint8)
        arrays = {
            "states": self.states, "pooled": self.pooled, "lengths": self.lengths,
            "captions": text,
        }  # fmt: skip
        metadata = {"format": FORMAT, "encoder": json.dumps(self.encoder.entries())}
        # (safetensors writes the memory of an array, whatever its strides are.)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_whole(Path(path), save(arrays, metadata))
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> EncodedCaptions:
        """Reads what `save` wrote.

        Raises:
            InputError: no file, or one that is damaged or not of this format.
        """
        from safetensors import SafetensorError, safe_open

        file = Path(path)
        check_file(file, "a file of encoded captions")
        try:
            with safe_open(file, framework="numpy") as tensors:
                metadata = tensors.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"its format is {metadata.get('format')}, and not {FORMAT}")
                arrays = {name: tensors.get_tensor(name) for name in _KINDS}
            encoder = EncoderIdentity.from_entries(json.loads(metadata["encoder"]))
            captions = _checked_captions(arrays)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: holds no encoded captions ({first_line(error)}); write it again with"
                " smcdiff.text.EncodedCaptions"
            ) from error
        return cls(captions, arrays["lengths"], arrays["states"], arrays["pooled"], encoder)


def _short(states: np.ndarray, dtype: type) -> np.ndarray:
    """States in the precision of the file."""
    limit = np.finfo(dtype).max
    if states.size and np.max(np.abs(states)) > limit:
        raise InputError(f"states reach beyond {limit}, float16's limit; give dtype=numpy.float32")
    return states.astype(dtype)


def _checked_captions(arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The captions of a file; raises ``ValueError`` where its arrays do not fit each other."""
    for name, (ndim, kind) in _KINDS.items():
        if arrays[name].ndim != ndim or arrays[name].dtype.kind != kind:
            raise ValueError(f"'{name}' is {arrays[name].dtype}{list(arrays[name].shape)}")
    captions = json.loads(arrays["captions"].tobytes())
    is_texts = isinstance(captions, list) and all(isinstance(text, str) for text in captions)
    lengths = arrays["lengths"]
    sizes = {len(captions), len(lengths), len(arrays["pooled"])}
    if not is_texts or len(sizes) > 1 or np.any(lengths < 0):
        raise ValueError("'captions', 'lengths' and 'pooled' do not fit each other")
    if lengths.sum() != len(arrays["states"]):
        raise ValueError("'states' has not as many rows as there are tokens")
    return tuple(captions)
