"""Where the observation of ``smcdiff solve`` comes from: a file, or a clean image degraded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from smcdiff.cli import images
from smcdiff.cli.problems import Measurement, Range
from smcdiff.errors import InputError
from smcdiff.store.shipped import load_examples

_LEAST_NOISE = 1e-6
"""Below this float32 does not tell an observation in [-1, 1] from its neighbours."""

_ROUNDING = 1e-3
"""By how much a clean image may leave [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The options of ``smcdiff solve`` that say where the images are, and what is in them."""

    image: Path | None
    simulate: bool
    truth: Path | None
    digit: int
    value_range: Range
    noise: float

    def check(self) -> None:
        """Raises ``InputError`` where the options do not go together."""
        if not (self.noise >= _LEAST_NOISE and np.isfinite(self.noise)):
            raise InputError(
                f"--noise is {self.noise:g}; it must be positive, at least {_LEAST_NOISE:g}"
            )
        if self.truth is not None and (self.image is None or self.simulate):
            raise InputError(
                "--truth goes with an IMAGE that is an observation, not with --simulate"
            )
        if self.simulate and self.image is None:
            raise InputError("--simulate needs a clean IMAGE; name one, or leave --simulate out")

    def check_noise_of(self, measured: Measurement) -> None:
        """Raises ``InputError`` where noise was given in other units than the observation's."""
        if self.noise > 2 and not measured.numbers:
            raise InputError(
                f"--noise is {self.noise:g}, more than white is from black (2): nothing is left to"
                f" see; give it for images from -1 to 1, so {self.noise / 127.5:.3g} for"
                f" {self.noise:g} of 255 grey levels"
            )

    def observe(
        self, measured: Measurement, prior: str, key: PRNGKeyArray
    ) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "h w c"] | None]:
        """The observation, and the true image where it is known.

        Args:
            measured: how the observation arises.
            prior: name or folder of the prior, which may come with examples.
            key: random key of the noise, where it is simulated.

        Raises:
            InputError: files that cannot be used, or a prior without examples.
        """
        shape = measured.operator.in_shape
        if self.image is not None and not self.simulate:
            y = measured.read(self.image, self.value_range, self.noise)
            return y, None if self.truth is None else self._clean(self.truth, shape)
        if self.image is None:
            clean = _example(prior, shape, self.digit)
        else:
            clean = self._clean(self.image, shape)
        y = measured.operator(jnp.asarray(clean))
        return np.asarray(y + self.noise * jax.random.normal(key, y.shape)), clean

    def _clean(self, file: Path, shape: tuple[int, ...]) -> Float[np.ndarray, "h w c"]:
        return images.read_image(file, shape, self.value_range, _ROUNDING)


def _example(prior: str, shape: tuple[int, ...], digit: int) -> Float[np.ndarray, "h w c"]:
    """A real event that the prior's training has not seen."""
    examples, labels = load_examples(prior)
    if examples.shape[1:] != shape:
        raise InputError(
            f"the examples of {prior} have shape {examples.shape[1:]}, its prior {shape}; give an"
            " IMAGE"
        )
    found = np.flatnonzero(labels == digit)
    if not len(found):
        known = sorted({int(label) for label in labels})
        raise InputError(f"--digit {digit}: the examples of {prior} are {known}; choose from them")
    return examples[found[0]]
