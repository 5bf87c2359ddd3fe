"""Settings in the JSON files of a Hugging Face folder, read with errors that name file and key."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from smcdiff.base._files import check_file
from smcdiff.errors import InputError, first_line

_HUGGING_FACE = "the folder of a Hugging Face model with config.json, tokenizer.json and weights"


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: no file, or no JSON in it.
    """
    check_file(file, _HUGGING_FACE)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{file}: cannot be read ({first_line(error)}); download it again"
        ) from error


@dataclasses.dataclass(frozen=True)
class Settings:
    """A JSON object, whose values are checked as they are asked for.

    Attributes:
        file: where it was read.
        values: the object.
    """

    file: Path
    values: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> Settings:
        """From a file.

        Raises:
            InputError: no file, or no JSON object in it.
        """
        values = read_json(file)
        if not isinstance(values, dict):
            raise InputError(f"{file}: holds no JSON object; download it again")
        return cls(file, values)

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(key, "is not a positive whole number")
        return value

    def number(self, key: str, default: float) -> float:
        """A positive number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self.wrong(key, "is not a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or False."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "is neither true nor false")
        return value

    def choice(self, key: str, known: Iterable[str], default: str | None = None) -> str:
        """One of the names that are known."""
        known, value = list(known), self._value(key, default)
        if value not in known:
            raise self.wrong(key, f"is none of those that are read: {', '.join(known)}")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise InputError(f"{self.file}: has no '{key}'; download the whole folder again")
        return value

    def wrong(self, key: str, problem: str) -> InputError:
        """The error of a value that cannot be used."""
        return InputError(
            f"{self.file}: '{key}', {self.values.get(key)!r}, {problem}; give the folder of"
            " another encoder"
        )
