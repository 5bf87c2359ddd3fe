"""What the two families of encoders have in common, for all that reads and runs them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int

from smcdiff.text._layers import Weights
from smcdiff.text._settings import Settings


@runtime_checkable
class Architecture(Protocol):
    """An encoder without its weights: a frozen dataclass of the sizes in config.json."""

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding of tokens."""
        ...

    @property
    def width(self) -> int:
        """Entries of a state."""
        ...

    @property
    def positions(self) -> int | None:
        """Tokens that have a position; None is any number."""
        ...

    @classmethod
    def read(cls, settings: Settings) -> Architecture:
        """From config.json.

        Raises:
            InputError: an entry is missing, wrong, or asks for what is not implemented.
        """
        ...

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all weights that the encoder has, by name."""
        ...

    def own_name(self, name: str) -> str | None:
        """The name in `shapes` of a tensor in a file, None for one of another part of a model."""
        ...

    def __call__(
        self, weights: Weights, ids: Int[Array, "n tokens"], mask: Bool[Array, "n tokens"]
    ) -> Float[Array, "n tokens width"]:
        """The last hidden states; those of padding mean nothing."""
        ...
