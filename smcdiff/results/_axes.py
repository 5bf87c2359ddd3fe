"""Names of axes and labels along them, as ``arviz.from_numpyro`` takes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smcdiff.errors import InputError

PARTICLE, DRAW, STEP = ("chain", "particle"), ("chain", "draw"), ("chain", "step")
_LEADING = frozenset({*PARTICLE, *DRAW, *STEP})

Shapes = Mapping[str, tuple[int, ...]]
"""Variable -> its shape, without chains and draws."""


@dataclasses.dataclass(frozen=True)
class Axes:
    """How the variables of an export are laid out.

    Attributes:
        dims: variable -> names of its axes, where they are not ``x_dim_0`` and so on.
        labels: name of an axis -> labels along it, where they are not 0, 1 and so on.
    """

    dims: Mapping[str, Sequence[str]]
    labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def of(self, name: str, ndim: int) -> tuple[str, ...]:
        """Names of the first axes of a variable: of a log likelihood, those of the batch."""
        return tuple(self.dims.get(name, [f"{name}_dim_{i}" for i in range(ndim)])[:ndim])

    def labelled(self, sizes: Mapping[Any, int]) -> dict[Any, np.ndarray]:
        """Axis -> labels, of axes with these lengths."""
        return {axis: self.labels.get(axis, np.arange(size)) for axis, size in sizes.items()}


def checked_axes(
    inferred: Mapping[str, Sequence[str]],
    shapes: Shapes,
    dims: Mapping[str, Sequence[str]] | None,
    coords: Mapping[str, Any] | None,
) -> Axes:
    """The axes that a user names, over those that the plates of the model do.

    Args:
        inferred: variable -> names of its axes, from plates.
        shapes: of all variables of the export.
        dims: variable -> names of its axes.
        coords: name of an axis -> labels along it.

    Raises:
        InputError: a variable or an axis that there is not, a wrong number of names or of labels,
            or one name for two things.
    """
    named = {name: _as_names(name, axes) for name, axes in (dims or {}).items()}
    _check_variables(named, shapes)
    axes = Axes({**inferred, **named})
    lengths: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        for axis, size in zip(axes.of(name, len(shape)), shape, strict=True):
            if axis in shapes:
                raise InputError(
                    f"to_arviz: '{axis}' is a variable, and a dimension of '{name}'; choose another"
                    " name for one of them"
                )
            other, first = lengths.setdefault(axis, (size, name))
            if other != size:
                raise InputError(
                    f"to_arviz: dimension '{axis}' has length {other} in '{first}' and {size} in"
                    f" '{name}'; give them two names in dims"
                )
    labels = {axis: _labels(axis, values, lengths) for axis, values in (coords or {}).items()}
    return dataclasses.replace(axes, labels=labels)


def _as_names(name: str, axes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(axes, str) or not all(isinstance(axis, str) for axis in axes):
        raise InputError(f"to_arviz: dims['{name}'] is {axes!r}; give a list of names")
    return tuple(axes)


def _check_variables(dims: Mapping[str, tuple[str, ...]], shapes: Shapes) -> None:
    for name, axes in dims.items():
        if name not in shapes:
            raise InputError(
                f"to_arviz: dims names '{name}', which is none of the variables {sorted(shapes)}"
            )
        if len(axes) != len(shapes[name]):
            raise InputError(
                f"to_arviz: dims['{name}'] has {len(axes)} names, {list(axes)}, and '{name}' has"
                f" the shape {shapes[name]}; give one name for each axis, without chains and draws"
            )
        for axis in axes:
            if axis in _LEADING or axes.count(axis) > 1:
                taken = "the export's own" if axis in _LEADING else "there twice"
                raise InputError(
                    f"to_arviz: dims['{name}'] has the dimension '{axis}', which is {taken}; choose"
                    " another name"
                )


def _labels(axis: str, values: Any, lengths: Mapping[str, tuple[int, str]]) -> np.ndarray:
    if axis not in lengths:
        raise InputError(
            f"to_arviz: coords names the dimension '{axis}', which is none of {sorted(lengths)};"
            " name the axes of a site with dims"
        )
    labels, (size, name) = np.asarray(values), lengths[axis]
    if labels.shape != (size,):
        raise InputError(
            f"to_arviz: coords['{axis}'] has {math.prod(labels.shape)} labels of shape"
            f" {labels.shape}, and the dimension has length {size} in '{name}'; give one label for"
            " each"
        )
    return labels
