"""Parts of a model as entries of config.json: shapes, schedules, predictions, thresholds, errors.

A schedule, a prediction or a threshold is an object of the package's own classes, written as its
class's name and its fields: numbers as they are, arrays as lists of numbers. Single precision
survives, for JSON writes as many digits as a number needs. What is read may be anything: wrong
entries raise what Python raises, and `smcdiff.store._folder.understanding` names the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import priors
from smcdiff.diffusion import schedules, thresholding
from smcdiff.errors import InputError
from smcdiff.priors import DenoisingError, Prediction

_SUFFIX = "Prediction"


def _classes(module: Any) -> dict[str, type]:
    """The dataclasses that a module offers, by name."""
    found = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    return {name: cls for name, cls in found.items() if dataclasses.is_dataclass(cls)}


def _schedules() -> dict[str, type]:
    needed = ("alpha", "sigma", "log_snr", "time")
    classes = _classes(schedules)
    return {name: cls for name, cls in classes.items() if all(hasattr(cls, m) for m in needed)}


def predictions() -> dict[str, type]:
    """What a network may predict, by name: ``VPrediction`` is "v"."""
    classes = _classes(priors)
    return {
        name.removesuffix(_SUFFIX).lower(): cls
        for name, cls in classes.items()
        if name.endswith(_SUFFIX)
    }


def _thresholds() -> dict[str, type]:
    classes = _classes(thresholding)
    return {name: cls for name, cls in classes.items() if thresholding.Threshold in cls.__bases__}


def schedule_entry(schedule: schedules.Schedule) -> dict[str, Any]:
    """A schedule as config.json has it, for example ``{"name": "Cosine", "t_min": 0.01, ...}``.

    Raises:
        InputError: a class that is not the package's, which could not be read again.
    """
    return {"name": _name(schedule, _schedules(), "schedule"), **_fields(schedule)}


def read_schedule(entry: Any) -> schedules.Schedule:
    """The schedule of an entry."""
    return _build(_schedules(), **entry)


def prediction_entry(prediction: Prediction) -> str | dict[str, Any]:
    """A prediction as config.json has it: its name, "v" say; with its fields, if it has any.

    Raises:
        InputError: a class that is not the package's, which could not be read again.
    """
    name, fields = _name(prediction, predictions(), "prediction"), _fields(prediction)
    return {"name": name, **fields} if fields else name


def read_prediction(entry: Any) -> Prediction:
    """The prediction of an entry."""
    return _build(predictions(), **({"name": entry} if isinstance(entry, str) else entry))


def threshold_entry(threshold: thresholding.Threshold | None) -> dict[str, Any] | None:
    """A threshold as config.json has it, for example ``{"name": "Static", "bound": 1.0}``.

    Raises:
        InputError: a class that is not the package's, which could not be read again.
    """
    if threshold is None:
        return None
    return {"name": _name(threshold, _thresholds(), "threshold"), **_fields(threshold)}


def read_threshold(entry: Any) -> thresholding.Threshold | None:
    """The threshold of an entry."""
    return None if entry is None else _build(_thresholds(), **entry)


def shape_entry(shape: Iterable[int]) -> list[int]:
    """A shape as config.json has it."""
    return [int(size) for size in shape]


def read_shape(entry: Any) -> tuple[int, ...]:
    """A shape of a configuration, () for a number; raises ``ValueError`` where it is none."""
    shape = tuple(entry)
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"{entry} is not a shape")
    return shape


def error_entry(error: DenoisingError | None) -> dict[str, float] | None:
    """A denoising error as config.json has it: the log-SNR as a name, and the error there."""
    if error is None:
        return None
    pairs = zip(_plain(error.log_snr), _plain(error.values), strict=True)
    return {str(int(at) if at == int(at) else at): value for at, value in pairs}


def read_error(entry: Any) -> DenoisingError | None:
    """The denoising error of an entry."""
    if entry is None:
        return None
    log_snr, values = np.array(sorted((float(at), value) for at, value in entry.items())).T
    if not np.all((values > 0.0) & (values < np.inf)):
        raise ValueError(f"denoising_error has values {values}, which must be positive")
    return DenoisingError(jnp.asarray(log_snr), jnp.asarray(values))


def _name(part: Any, known: Mapping[str, type], what: str) -> str:
    for name, cls in known.items():
        if type(part) is cls:
            return name
    raise InputError(
        f"the {what} is a {type(part).__name__}, which could not be read again: a folder names a"
        f" class of the package, {', '.join(known)}; take one of them"
    )


def _fields(part: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(part, field.name)) for field in dataclasses.fields(part)}


def _plain(value: Any) -> Any:
    """A number, a list of numbers, or whatever else JSON knows."""
    is_numbers = isinstance(value, jax.Array | np.ndarray | np.generic)
    return np.asarray(value).tolist() if is_numbers else value


def _build(classes: Mapping[str, type], name: Any, **fields: Any) -> Any:
    """An object of the class of that name."""
    return classes[name](**{field: _value(field, value) for field, value in fields.items()})


def _value(field: str, entry: Any) -> Any:
    if isinstance(entry, list):
        return jnp.asarray(np.array(entry, dtype=float))
    if isinstance(entry, str):
        raise ValueError(f"{field} is '{entry}', not a number")
    return entry
