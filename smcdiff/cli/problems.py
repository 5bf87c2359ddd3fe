"""The imaging problems that the command line knows, and their operators."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from smcdiff import operators
from smcdiff.cli import images, masks
from smcdiff.errors import InputError, did_you_mean
from smcdiff.operators import LinearOperator

Range = tuple[float, float] | None
"""Black and white in a file."""

OPTIONS = {
    "inpaint": ("mask", "hide", "box", "hide_channels", "keep"),
    "deblur": ("width", "kernel", "wrap", "motion", "angle"),
    "super-resolve": ("factor", "bicubic"),
    "colourise": ("mix",),
    "fourier": ("mask", "keep"),
    "separable": ("rows", "columns"),
    "dense": ("matrix",),
}
"""The problems, and the options of each."""

_NO_IMAGES = ("inpaint", "fourier", "dense")
"""The problems whose observations are no images; only `dense` takes anything."""


@dataclasses.dataclass(frozen=True)
class Degradation:
    """The options of ``smcdiff solve`` that say how the observation arises; None is not given."""

    mask: Path | None = None
    hide: str | None = None
    box: tuple[int, int, int, int] | None = None
    hide_channels: str | None = None
    keep: float | None = None
    width: float | None = None
    kernel: Path | None = None
    wrap: bool | None = None
    motion: float | None = None
    angle: float | None = None
    factor: int | None = None
    bicubic: bool | None = None
    mix: Path | None = None
    rows: Path | None = None
    columns: Path | None = None
    matrix: Path | None = None

    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None]

    def one_of(self, *names: str) -> str | None:
        """Which of several options that exclude each other was given, if any.

        Raises:
            InputError: more than one.
        """
        found = [name for name in names if name in self.given()]
        if len(found) > 1:
            options = " and ".join(_option(name) for name in found)
            raise InputError(f"{options} exclude each other; leave one out")
        return found[0] if found else None

    def check(self, problem: str) -> list[str]:
        """What can be checked before the prior, and with it the images' shape, is known.

        Args:
            problem: its name, or several joined by "+".

        Returns:
            The names that are joined.

        Raises:
            InputError: an unknown problem, options of another, or numbers out of range.
        """
        kinds = _kinds(problem)
        for option in self.given():
            owners = [kind for kind, names in OPTIONS.items() if option in names]
            if not set(owners) & set(kinds):
                raise InputError(
                    f"{_option(option)} goes with {' or '.join(owners)}, not with {problem}; leave"
                    " it out"
                )
        for option in ("width", "motion", "factor"):
            value = getattr(self, option)
            if value is not None and not 0 < value < np.inf:
                raise InputError(f"{_option(option)} is {value:g}; it must be positive")
        if self.angle is not None and not np.isfinite(self.angle):
            raise InputError(f"--angle is {self.angle:g}; give it in degrees, for example 45")
        if self.keep is not None and not 0.0 < self.keep <= 1.0:
            raise InputError(f"--keep is {self.keep:g}; it must lie in (0, 1]")
        if self.box is not None and (min(self.box[:2]) < 0 or min(self.box[2:]) < 1):
            raise InputError(
                f"--box {' '.join(map(str, self.box))}: give the first row, the first column, from"
                " 0, the height and the width, from 1"
            )
        return kinds

    def need(self, name: str, *others: str) -> None:
        """Raises ``InputError`` where ``name`` was given, and none of the others."""
        if name in self.given() and not set(others) & set(self.given()):
            needed = " or ".join(_option(other) for other in others)
            raise InputError(f"{_option(name)} does nothing without {needed}; add it")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclasses.dataclass(frozen=True)
class Part:
    """An operator of the chain.

    Attributes:
        operator: the operator.
        reach: largest absolute value of an observation of an image in [-1, 1].
        numbers: whether observations are plain numbers: black and white mean nothing in them.
        seen: flat indices of the pixels or coefficients that it picks, where it does.
    """

    operator: LinearOperator
    reach: float = 1.0
    numbers: bool = False
    seen: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """How the observation arises.

    Attributes:
        name: the problem as the user wrote it.
        kind: the name of the operator that is applied last.
        last: that operator, and what it picks.
        operator: all of them, composed.
        reach: largest absolute value of an observation of an image in [-1, 1].
        numbers: whether observations are plain numbers, not images with black and white.
    """

    name: str
    kind: str
    last: Part
    operator: LinearOperator
    reach: float
    numbers: bool

    @classmethod
    def of(
        cls, name: str, options: Degradation, shape: tuple[int, ...], key: PRNGKeyArray
    ) -> Measurement:
        """From the command line.

        Args:
            name: a problem, or several joined by "+": the first is applied first.
            options: what the user said about them.
            shape: (h, w, c) of the prior's images.
            key: random key, for what is hidden at random.

        Raises:
            InputError: an unknown problem, or options that fit neither it nor the images.
        """
        kinds = options.check(name)
        parts: list[Part] = []
        for previous, kind in zip([None, *kinds], kinds, strict=False):
            if previous in _NO_IMAGES and kind != "dense":
                raise InputError(
                    f"{name}: {previous} leaves no image, and {kind} takes one; put {previous} last"
                )
            parts.append(_MAKERS[kind](options, shape, key))
            shape = parts[-1].operator.out_shape
        operator = parts[0].operator
        for part in parts[1:]:
            operator = part.operator @ operator
        reach = float(np.prod([part.reach for part in parts]))
        numbers = any(part.numbers for part in parts)
        return cls(name, kinds[-1], parts[-1], operator, reach, numbers)

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The shape of the array in the user's file: what is hidden has its place there too."""
        last = self.last.operator
        return last.out_shape if self.last.seen is None else last.in_shape

    @property
    def is_image(self) -> bool:
        """Whether the user's file holds an image with black and white, and not plain numbers."""
        return self.kind != "fourier" and not self.numbers

    def read(self, file: Path, value_range: Range, noise: float) -> np.ndarray:
        """The user's observation, from a file; see `observe`."""
        values = images.read_file(file) if self.is_image else images.read_array(file)
        y = self.observe(str(file), values, value_range, noise)
        if self.is_image:
            images.note_alpha(str(file), values.shape, self.file_shape)
        return y

    def observe(
        self, name: str, values: np.ndarray, value_range: Range, noise: float
    ) -> np.ndarray:
        """The observation in the units of the operator.

        Args:
            name: of the array, for messages.
            values: an image of the size that the operator returns (inpaint: that it takes), or
                numbers, where the operator returns no image.
            value_range: as for `images.to_image`.
            noise: standard deviation of the noise.

        Raises:
            InputError: what `images.to_image` raises, or a range for plain numbers.
        """
        shape, seen = self.file_shape, self.last.seen
        if self.is_image:
            hidden = None
            if seen is not None:
                hidden = np.ones(shape, bool)
                hidden.flat[seen] = False
            margin = 6 * noise + self.reach - 1
            image = images.to_image(name, values, shape, value_range, margin, hidden)
        elif value_range is not None:
            raise InputError(
                f"--range does not apply to the observations of {self.name}: give the numbers that"
                " it makes of an image whose black is -1 and white 1"
            )
        elif self.kind == "fourier":
            return self._coefficients(name, values, shape)
        else:
            image = images.to_numbers(name, values, shape)
        return image if seen is None else image.ravel()[seen]

    def _coefficients(self, name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Real and imaginary parts of the coefficients that are observed."""
        values = images.to_complex(name, values, shape).reshape(-1, *shape[2:])[self.last.seen]
        if not np.all(np.abs(values) <= np.finfo(np.float32).max):
            raise InputError(
                f"{name}: coefficients that are observed are NaN or infinite; hide them with --mask"
            )
        return np.stack([np.real(values), np.imag(values)]).astype(np.float32)

    def picture(self, y: np.ndarray) -> np.ndarray:
        """The observation as an image: NaN where nothing is seen; or A'y, where y is no image."""
        seen = np.asarray(y, np.float32)
        if self.kind == "inpaint" and self.last.seen is not None:
            pixels = np.full(self.last.operator.in_shape, np.nan, np.float32)
            pixels.flat[self.last.seen] = seen
            seen = pixels
        elif self.kind in ("fourier", "dense"):
            seen = np.asarray(self.operator.adjoint(jnp.asarray(seen)))
        if self.numbers:  # of any size
            seen = seen / max(float(np.nanmax(np.abs(seen))), 1e-12)
        return seen if seen.shape[-1] in (1, 3) else seen.mean(axis=-1)


def _kinds(name: str) -> list[str]:
    kinds = name.split("+")
    for kind in kinds:
        if kind not in OPTIONS:
            hint = did_you_mean(kind, OPTIONS)
            raise InputError(f"no problem named '{kind}'; {hint} (join several with +)")
        if kinds.count(kind) > 1:
            raise InputError(
                f"{name}: {kind} twice, but its options can be given only once; in Python operators"
                " are joined freely, outer @ inner"
            )
    return kinds


def _inpaint(options: Degradation, shape: tuple[int, ...], key: PRNGKeyArray) -> Part:
    part = options.one_of("mask", "hide", "box")
    if options.keep is not None and options.hide != "random":
        raise InputError("--keep does nothing without --hide random; add it")
    observed = np.ones(shape, bool)
    if options.mask is not None:
        observed = masks.read_mask(options.mask, shape)
    elif options.box is not None:
        observed = masks.box_mask(options.box, shape)
    elif options.hide == "random":
        chosen = operators.Mask.random(key, shape, _kept(options))
        observed = np.isin(np.arange(observed.size), chosen.indices).reshape(shape)
    elif part is not None or options.hide_channels is None:
        observed = masks.standard_mask(options.hide or "right", shape)
    if options.hide_channels is not None:
        observed = observed & masks.read_channels(options.hide_channels, shape[-1])
    if not observed.any():
        raise InputError(
            "inpaint: every pixel is masked; leave at least one observed in --mask, --box or"
            " --hide-channels"
        )
    return Part(operators.Mask.of(observed), seen=np.flatnonzero(observed))


def _kept(options: Degradation) -> float:
    return 0.3 if options.keep is None else options.keep


def _deblur(options: Degradation, shape: tuple[int, ...], key: PRNGKeyArray) -> Part:
    options.one_of("width", "kernel", "motion")
    options.need("angle", "motion")
    options.need("wrap", "kernel")
    if options.kernel is not None:
        kernel = images.read_filter(options.kernel)
        operator = operators.Convolution(shape, kernel, bool(options.wrap))
        return Part(operator, float(np.abs(kernel).sum()), not np.isclose(kernel.sum(), 1, 0, 1e-3))
    if options.motion is not None:
        angle = 45.0 if options.angle is None else options.angle
        return Part(operators.MotionBlur(shape, options.motion, angle))
    return Part(operators.GaussianBlur(shape, 2.0 if options.width is None else options.width))


def _super_resolve(options: Degradation, shape: tuple[int, ...], key: PRNGKeyArray) -> Part:
    factor = 4 if options.factor is None else options.factor
    if not options.bicubic:
        return Part(operators.BlockDownsample(shape, factor))
    operator = operators.BicubicDownsample(shape, factor)
    return Part(operator, _largest_sum(operator.rows) * _largest_sum(operator.columns))


def _largest_sum(matrix) -> float:
    """How far a matrix takes vectors in [-1, 1]."""
    return float(np.abs(np.asarray(matrix)).sum(axis=1).max())


def _averages(matrix) -> bool:
    """Whether each row sums to one, so that black stays black and white white."""
    return bool(np.allclose(np.asarray(matrix).sum(axis=1), 1, rtol=0, atol=1e-3))


def _colourise(options: Degradation, shape: tuple[int, ...], key: PRNGKeyArray) -> Part:
    if options.mix is None:
        return Part(operators.ColourMix.grey(shape))
    weights = images.read_numbers(options.mix, (None, shape[-1]))
    operator = operators.ColourMix(jnp.asarray(weights), shape)
    return Part(operator, _largest_sum(weights), not _averages(weights))


def _fourier(options: Degradation, shape: tuple[int, ...], key: PRNGKeyArray) -> Part:
    options.one_of("mask", "keep")
    if options.mask is not None:
        kept = masks.read_mask(options.mask, (*shape[:2], 1))[..., 0]
        return Part(operators.MaskedFourier.of(kept, shape), seen=np.flatnonzero(kept))
    kept = np.zeros(shape[:2], bool)
    chosen = operators.Mask.random(key, shape[:2], _kept(options))
    kept.flat[np.asarray(chosen.indices)] = True
    # The lowest frequencies are always measured: they hold most of an image.
    kept[np.ix_([0, 1, -1], [0, 1, -1])] = True
    return Part(operators.MaskedFourier.of(kept, shape), seen=np.flatnonzero(kept))


def _separable(options: Degradation, shape: tuple[int, ...], key: PRNGKeyArray) -> Part:
    if options.rows is None or options.columns is None:
        raise InputError("separable needs --rows and --columns, a matrix in an .npy file each")
    rows = images.read_numbers(options.rows, (None, shape[0]))
    columns = images.read_numbers(options.columns, (None, shape[1]))
    operator = operators.Separable(shape, rows, columns)
    averages = _averages(rows) and _averages(columns)
    return Part(operator, _largest_sum(rows) * _largest_sum(columns), not averages)


def _dense(options: Degradation, shape: tuple[int, ...], key: PRNGKeyArray) -> Part:
    if options.matrix is None:
        raise InputError("dense needs --matrix, an .npy file of shape (observations, pixels)")
    size = int(np.prod(shape))
    matrix = images.read_numbers(options.matrix, (None, size))
    operator = operators.Dense(jnp.asarray(matrix)) @ operators.Reshape(shape, (size,))
    return Part(operator, numbers=True)


_MAKERS: dict[str, Callable[..., Part]] = {
    "inpaint": _inpaint,
    "deblur": _deblur,
    "super-resolve": _super_resolve,
    "colourise": _colourise,
    "fourier": _fourier,
    "separable": _separable,
    "dense": _dense,
}
