"""Captions as three text encoders see them, as files of encoded captions.

MiniLM as it is gives a vector per token and a pooled one. Two lesser encoders are made of files:
each has an identity of its own, so that a prior of one refuses the vectors of another, and its
file lies in the prior's folder, for no encoder of that name can be loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np

from smcdiff import load_text_encoder, shapes
from smcdiff.text import EncodedCaptions, EncoderIdentity

TOKENS, POOLED, BAG = "token states", "pooled vector", "bag of words"
ENCODERS = {
    TOKENS: "all-MiniLM-L6-v2: a state of 384 entries per token, and their pooled vector",
    POOLED: "all-MiniLM-L6-v2: the pooled vector alone, which stands for the only token as well",
    BAG: "how often each word of the grammar occurs, in place of the pooled vector and as the only"
    " token; the order of words is lost",
}
"""What a prior sees of a caption."""


def digest(value) -> str:
    """sha256 of what JSON holds."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def pooled_vectors(encoder: str, captions: Sequence[str]) -> EncodedCaptions:
    """One token a caption, which is its pooled vector."""
    whole = EncodedCaptions.encode(load_text_encoder(encoder), captions)
    identity = whole.encoder
    return single_tokens(
        whole.captions, whole.pooled,
        dataclasses.replace(
            identity, name=f"{identity.name}, pooled vector",
            config=digest([identity.config, "the pooled vector is the only token"]),
        ),
    )  # fmt: skip


def vocabulary() -> list[str]:
    """All words of the grammar; a plural is another word than its singular."""
    return sorted({word for caption in shapes.captions() for word in caption.split()})


def word_counts(captions: Sequence[str]) -> EncodedCaptions:
    """One token a caption: how often it has each word."""
    words = vocabulary()
    counts = [[caption.split().count(word) for word in words] for caption in captions]
    known = digest(words)
    identity = EncoderIdentity("bag of words", known, known, digest("counts"))
    return single_tokens(tuple(captions), np.array(counts, np.float32), identity)


def single_tokens(
    captions: tuple[str, ...], vectors: np.ndarray, identity: EncoderIdentity
) -> EncodedCaptions:
    """A vector a caption."""
    return EncodedCaptions(captions, np.ones(len(captions), np.int32), vectors, vectors, identity)


def encoded(name: str, encoder: str) -> EncodedCaptions:
    """The whole grammar by one of `ENCODERS` that is made of a file.

    Args:
        name: of it.
        encoder: what pooled vectors are of.
    """
    if name == POOLED:
        return pooled_vectors(encoder, shapes.captions())
    return word_counts(shapes.captions())
