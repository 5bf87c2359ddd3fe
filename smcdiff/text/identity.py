"""`EncoderIdentity`: which encoder a vector is from, since those of another mean nothing here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from smcdiff.errors import InputError


@dataclasses.dataclass(frozen=True)
class EncoderIdentity:
    """What fixes the vectors that a text encoder gives.

    Attributes:
        name: for messages; two names may stand for one encoder.
        weights: sha256 of its model.safetensors; of several shards, that of their sha256.
        tokenizer: sha256 of its tokenizer.json.
        config: sha256 of the settings that are read: sizes, activations, pooling.
    """

    name: str
    weights: str
    tokenizer: str
    config: str

    def entries(self) -> dict[str, str]:
        """As JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> EncoderIdentity:
        """From what `entries` gave.

        Raises:
            KeyError: an entry is missing.
            TypeError: an entry is no text.
        """
        values = {field.name: entries[field.name] for field in dataclasses.fields(cls)}
        if not all(isinstance(value, str) for value in values.values()):
            raise TypeError("the identity of an encoder consists of texts")
        return cls(**values)

    def require(self, other: EncoderIdentity, what: str) -> None:
        """Refuses another encoder; names may differ.

        Args:
            other: the identity of the encoder that is offered.
            what: depends on this one, "the captions of shapes.safetensors" say.

        Raises:
            InputError: weights, tokenizer or settings differ; the message says which.
        """
        differ = [
            name
            for name in ("weights", "tokenizer", "config")
            if getattr(self, name) != getattr(other, name)
        ]
        if differ:
            raise InputError(
                f"{what}: made with the text encoder '{self.name}' (weights"
                f" {self.weights[:8]}...), and not with this '{other.name}' (weights"
                f" {other.weights[:8]}...): {', '.join(differ)} differ; take the encoder that it"
                " was made with"
            )
