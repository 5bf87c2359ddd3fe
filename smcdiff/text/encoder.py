"""`TextEncoder`: a frozen network that turns captions into vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from smcdiff.base._progress import Progress, begin, progress_of
from smcdiff.base.module import Module, static
from smcdiff.errors import InputError
from smcdiff.text._architecture import Architecture
from smcdiff.text._layers import Weights
from smcdiff.text._pooling import Pooling
from smcdiff.text._tokenizer import Tokenizer, check_lengths
from smcdiff.text.embedding import TextEmbedding
from smcdiff.text.identity import EncoderIdentity

_ROUND = 8
"""Captions are padded to multiples of this, so that few lengths are compiled for."""


class TextEncoder(Module):
    """A frozen text encoder, as `smcdiff.load_text_encoder` reads it.

    Attributes:
        weights: by the names of their file, in its precision; what is computed is float32.
        architecture: BERT or T5, and its sizes.
        pooling: how states become one vector.
        tokenizer: how captions become tokens.
        identity: which encoder it is.
    """

    weights: dict[str, Float[Array, "..."]]
    architecture: Architecture = static()
    pooling: Pooling = static()
    tokenizer: Tokenizer = static()
    identity: EncoderIdentity = static()

    @property
    def width(self) -> int:
        """Entries of a token's state, and of a pooled vector."""
        return self.architecture.width

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a caption, special ones included; None is any number."""
        return self.tokenizer.limit

    def encode(
        self,
        captions: Sequence[str],
        *,
        num_tokens: int | None = None,
        batch_size: int = 64,
        progress_bar: bool | Progress = False,
    ) -> TextEmbedding:
        """Encodes captions.

        Padding has no influence: a caption has the same vectors, up to rounding, whatever it is
        encoded with.

        Args:
            captions: n texts. An empty one has special tokens only.
            num_tokens: pad to so many tokens; None is the longest of these captions.
            batch_size: captions encoded at once.
            progress_bar: show progress; or a callable ``progress(t, num_steps, info)``.

        Returns:
            States (n, num_tokens, width), mask (n, num_tokens) and pooled vectors (n, width), all
            float32.

        Raises:
            InputError: no captions, one that is no text or has more tokens than the encoder or
                ``num_tokens`` allows (the message names it), or a size below 1.
        """
        tokens = self.tokenizer.tokens(captions)
        lengths = [len(ids) for ids in tokens]
        most = longest(captions, lengths, num_tokens)
        states = np.zeros((len(tokens), most, self.width), np.float32)
        pooled = np.zeros((len(tokens), self.width), np.float32)
        start = 0
        for batch in self.batches(tokens, batch_size, progress_bar):
            rows = slice(start, start := start + len(batch.pooled))
            length = min(most, batch.states.shape[1])
            states[rows, :length] = batch.states[:, :length]
            pooled[rows] = batch.pooled
        mask = np.arange(most)[None] < np.array(lengths)[:, None]
        return TextEmbedding(jnp.asarray(states), jnp.asarray(mask), jnp.asarray(pooled))

    def encode_tokens(
        self, ids: Int[Array, "n tokens"], mask: Bool[Array, "n tokens"]
    ) -> TextEmbedding:
        """Encodes tokens; a pure function for use under ``jax.jit``.

        Args:
            ids: numbers of the tokens.
            mask: which of them are a caption's, the others are padding. A caption of which all is
                hidden has zeros.

        Returns:
            States (n, tokens, width), zero where the mask hides them, mask, and pooled vectors.
        """
        return _embed(self.architecture, self.pooling, self.weights, ids, mask)

    def batches(
        self, tokens: list[list[int]], batch_size: int, progress_bar: bool | Progress
    ) -> Iterator[TextEmbedding]:
        """The embeddings of captions, a batch at a time.

        Args:
            tokens: the numbers of the tokens of each, by `Tokenizer.tokens`.
            batch_size: captions encoded at once.
            progress_bar: as of `encode`.

        Yields:
            Embeddings of the next ``batch_size`` captions as NumPy arrays, each batch padded to
            some length of its own.

        Raises:
            InputError: a batch size below 1.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}; give a number of captions, 1 or more")
        with progress_of(progress_bar, "Encoding", "captions") as progress:
            begin(progress)
            for start in range(0, len(tokens), batch_size):
                batch = tokens[start : start + batch_size]
                ids, mask = self._padded(batch, batch_size)
                embedding = self.encode_tokens(jnp.asarray(ids), jnp.asarray(mask))
                yield _on_host(embedding, len(batch))
                progress(start + len(batch), len(tokens), {})

    def _padded(self, batch: list[list[int]], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and mask of a batch, in one of a few shapes."""
        rows = min(batch_size, 1 << (len(batch) - 1).bit_length())
        length = max(_ROUND, -(-max(map(len, batch)) // _ROUND) * _ROUND)
        length = min(length, self.architecture.positions or length)
        ids, mask = np.zeros((rows, length), np.int32), np.zeros((rows, length), bool)
        for row, numbers in enumerate(batch):
            ids[row, : len(numbers)] = numbers
            mask[row, : len(numbers)] = True
        return ids, mask


def longest(captions: Sequence[str], lengths: Sequence[int], num_tokens: int | None) -> int:
    """How many tokens captions are padded to; raises ``InputError`` where one has more."""
    if num_tokens is None:
        return max(lengths)
    if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or num_tokens < 1:
        raise InputError(f"num_tokens is {num_tokens!r}; give a number of tokens, 1 or more")
    check_lengths(captions, lengths, num_tokens)
    return num_tokens


def _on_host(embedding: TextEmbedding, count: int) -> TextEmbedding:
    """The first rows, as NumPy arrays; the others fill a batch up."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], embedding)


@partial(jax.jit, static_argnums=(0, 1))
def _embed(
    architecture: Architecture,
    pooling: Pooling,
    weights: Weights,
    ids: Int[Array, "n tokens"],
    mask: Bool[Array, "n tokens"],
) -> TextEmbedding:
    # Encoded once and used often: no short products where a device has them (TF32).
    with jax.default_matmul_precision("highest"):
        states = architecture(weights, ids, mask)
    states = jnp.where(mask[..., None], states, 0.0)
    return TextEmbedding(states, mask, pooling(states, mask))
