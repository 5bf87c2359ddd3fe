"""The imaging problems that the command line knows, and their operators."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path

from smcdiff.errors import InputError


class Problem(enum.StrEnum):
    """The problems that the command line knows."""

    INPAINT = "inpaint"
    DEBLUR = "deblur"
    SUPER_RESOLVE = "super-resolve"
    COLOURISE = "colourise"
    FOURIER = "fourier"


@dataclasses.dataclass(frozen=True)
class Degradation:
    """The options of ``smcdiff solve`` that say how the observation arises."""

    mask: Path | None
    hide: str
    keep: float
    width: float
    motion: float | None
    angle: float
    factor: int
    bicubic: bool

    def operator(self, problem: Problem, shape: tuple[int, ...], key):
        """The linear operator.

        Args:
            problem: which.
            shape: of the prior's images.
            key: random key, for what is hidden at random.

        Raises:
            InputError: options that do not fit the problem or the images.
        """
        from smcdiff import operators

        if self.mask is not None and problem is not Problem.INPAINT:
            raise InputError(f"--mask goes with inpaint, not with {problem}")
        if self.motion is not None and problem is not Problem.DEBLUR:
            raise InputError(f"--motion goes with deblur, not with {problem}")
        if self.bicubic and problem is not Problem.SUPER_RESOLVE:
            raise InputError(f"--bicubic goes with super-resolve, not with {problem}")
        if problem is Problem.DEBLUR and self.motion is not None:
            return operators.MotionBlur(shape, self.motion, self.angle)
        if problem is Problem.DEBLUR:
            return operators.GaussianBlur(shape, self.width)
        if problem is Problem.SUPER_RESOLVE:
            make = operators.BicubicDownsample if self.bicubic else operators.BlockDownsample
            return make(shape, self.factor)
        if problem is Problem.COLOURISE:
            return operators.ColourMix.grey(shape)
        return self._chosen(problem, shape, key)

    def _chosen(self, problem: Problem, shape: tuple[int, ...], key):
        """Some of the pixels, or of the Fourier coefficients."""
        import numpy as np

        from smcdiff import operators
        from smcdiff.cli.images import read_mask, standard_mask

        if self.mask is not None:
            return operators.Mask.of(read_mask(self.mask, shape))
        if problem is Problem.INPAINT and self.hide != "random":
            return operators.Mask.of(standard_mask(self.hide, shape))
        if not 0.0 < self.keep <= 1.0:
            raise InputError(f"--keep is {self.keep:g}; it must lie in (0, 1]")
        if problem is Problem.INPAINT:
            return operators.Mask.random(key, shape, self.keep)
        kept = np.zeros(shape[:2], bool)
        kept.flat[np.asarray(operators.Mask.random(key, shape[:2], self.keep).indices)] = True
        # The lowest frequencies are always measured: they hold most of an image.
        kept[np.ix_([0, 1, -1], [0, 1, -1])] = True
        return operators.MaskedFourier.of(kept, shape)
