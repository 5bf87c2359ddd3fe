"""Captions as the numbers of their tokens, by a tokenizer.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smcdiff.base._files import check_file, file_digest
from smcdiff.errors import InputError, first_line

TOKENIZER = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """The tokens of captions, special ones included; nothing is cut off or padded.

    Attributes:
        sha256: of tokenizer.json, by which two are told apart.
        lower: captions are written in lower case first.
        limit: most tokens that the encoder takes; None is any number.
        tokenizer: that of the package tokenizers.
    """

    sha256: str
    lower: bool
    limit: int | None
    tokenizer: Any = dataclasses.field(compare=False, repr=False)

    @classmethod
    def read(cls, folder: Path, vocabulary: int, lower: bool, limit: int | None) -> Tokenizer:
        """From a folder.

        Args:
            folder: that of tokenizer.json.
            vocabulary: rows of the encoder's embedding of tokens.
            lower: see the class.
            limit: see the class.

        Raises:
            InputError: the package tokenizers is missing; no file, one that cannot be read, or
                one with tokens that the encoder does not know.
        """
        try:
            import tokenizers
        except ImportError as error:
            raise InputError(
                "text encoders need the package tokenizers; run: pip install 'tokenizers>=0.20'"
            ) from error
        file = folder / TOKENIZER
        check_file(file, f"the folder of a model with {TOKENIZER}, the fast tokenizer's file")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # what it raises is a bare Exception
            raise InputError(
                f"{file}: cannot be read ({first_line(error)}); download it again"
            ) from error
        # A file may say how its tokenizer cuts and pads; cut captions would be wrong silently.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        most = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if most >= vocabulary:
            raise InputError(
                f"{file}: has tokens up to number {most}, and the encoder knows {vocabulary} (by"
                " config.json); they are not of one model"
            )
        return cls(file_digest(file), lower, limit, tokenizer)

    def tokens(self, captions: Sequence[str]) -> list[list[int]]:
        """The numbers of the tokens of each caption.

        Raises:
            InputError: no captions, one that is no text, or one of too many tokens.
        """
        check_captions(captions)
        texts = [caption.lower() if self.lower else caption for caption in captions]
        found = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        if self.limit is not None:
            check_lengths(captions, [len(ids) for ids in found], self.limit, "the encoder takes")
        return found


def check_lengths(
    captions: Sequence[str], lengths: Sequence[int], most: int, what: str = "num_tokens is"
) -> None:
    """Raises ``InputError`` naming the first caption of more than so many tokens."""
    for caption, length in zip(captions, lengths, strict=True):
        if length > most:
            shown = caption if len(caption) <= 60 else f"{caption[:60]}..."
            raise InputError(
                f"caption '{shown}' has {length} tokens, and {what} {most}: shorten it"
            )


def check_captions(captions: Sequence[str]) -> None:
    """Raises ``InputError`` unless there is a list of at least one text."""
    if isinstance(captions, str):
        raise InputError("captions are a list of texts; put the one caption in brackets")
    if len(captions) == 0:
        raise InputError("the list of captions is empty; give at least one")
    for index, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise InputError(f"caption {index} is a {type(caption).__name__}; give a text")
        try:
            caption.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"caption {index}, {caption!r}, has bytes that are no characters; write it in UTF-8"
            ) from error
