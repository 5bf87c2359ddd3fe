"""How the states of a caption's tokens become one vector."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smcdiff.errors import InputError
from smcdiff.text._settings import Settings, read_json

_MODES = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
"""By the names of sentence-transformers."""


@dataclasses.dataclass(frozen=True)
class Pooling:
    """The mean of the states, or the first one; of length 1, if the encoder was trained so.

    Attributes:
        mode: "mean" or "cls".
        normalise: divide by the length.
    """

    mode: str = "mean"
    normalise: bool = False

    def __call__(
        self, states: Float[Array, "n tokens width"], mask: Bool[Array, "n tokens"]
    ) -> Float[Array, "n width"]:
        """One vector per caption.

        Args:
            states: zero where the mask hides them.
            mask: which tokens are the caption's.

        Returns:
            The vectors; zeros where all is hidden.
        """
        if self.mode == "mean":
            count = jnp.sum(mask, axis=1, keepdims=True)
            pooled = jnp.sum(states, axis=1) / jnp.maximum(count, 1)
        else:
            pooled = states[:, 0]
        if self.normalise:
            # The maximum is taken of the square, so that zeros have a derivative.
            square = jnp.sum(pooled**2, axis=1, keepdims=True)
            pooled = pooled * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
        return pooled


def read_pooling(folder: Path) -> Pooling:
    """As modules.json of sentence-transformers says; the mean where there is none.

    Raises:
        InputError: a module, or a kind of pooling, that is not implemented.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return Pooling()
    modules = read_json(file)
    try:
        steps = {module["type"].rpartition(".")[2]: folder / module["path"] for module in modules}
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file}: is no list of modules; download it again") from error
    unknown = sorted(set(steps) - {"Transformer", "Pooling", "Normalize"})
    if unknown or steps.get("Transformer") != folder:
        found = f"a module {unknown[0]}" if unknown else "its encoder in another folder"
        raise InputError(
            f"{file}: has {found}, which is not implemented; give the folder of an encoder with"
            " pooling and normalisation alone"
        )
    mode = _mode(Settings.read(steps["Pooling"] / "config.json")) if "Pooling" in steps else "mean"
    return Pooling(mode, "Normalize" in steps)


def _mode(settings: Settings) -> str:
    prefix = "pooling_mode_"
    chosen = [key.removeprefix(prefix) for key, value in settings.values.items()
              if key.startswith(prefix) and value is True]  # fmt: skip
    chosen = chosen or [settings.values.get("pooling_mode", "mean")]
    if len(chosen) > 1 or chosen[0] not in _MODES:
        raise InputError(
            f"{settings.file}: pools by {', '.join(map(str, chosen))}, which is not implemented;"
            " give an encoder that pools by mean_tokens or cls_token"
        )
    return _MODES[chosen[0]]
