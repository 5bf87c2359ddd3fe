"""All that touches ArviZ, whose 0.23 (Python 3.11) and 1.x (from Python 3.12) differ.

ArviZ is imported where a function needs it, never by a run: it costs a second.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from smcdiff.errors import InputError

if TYPE_CHECKING:
    import xarray


def _major() -> int:
    """The first number of the version of ArviZ that is installed."""
    try:
        return int(importlib.metadata.version("arviz").split(".")[0])
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError("ArviZ is not installed; run: pip install 'arviz>=0.23.4,<2'") from error


def _arviz_0() -> Any:
    """ArviZ 0.x, without its advice to prepare for 1.x, which is about the user's own calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def as_arviz_takes(tree: xarray.DataTree) -> Any:
    """What the functions of the installed ArviZ take.

    Args:
        tree: groups as ArviZ names them.

    Returns:
        ``arviz.InferenceData`` for ArviZ 0.x; for 1.x the tree itself.

    Raises:
        InputError: ArviZ is not installed.
    """
    return tree if _major() >= 1 else _arviz_0().from_datatree(tree)


def pareto_shape(log_weights: Float[np.ndarray, " n"]) -> float:
    """Shape k of the generalised Pareto distribution of the largest weights, ArviZ's k-hat.

    Above 0.7 weighted averages are unreliable, above 1 the fitted tail has not even a mean (Vehtari
    et al. 2024, Pareto smoothed importance sampling, J. Mach. Learn. Res. 25, 72).

    Args:
        log_weights: (n,), any constant added.

    Returns:
        k-hat; NaN where it cannot be told, from 20 weights or fewer; -inf where the largest weights
        are equal, so that no tail is left.

    Raises:
        InputError: ArviZ is not installed.
    """
    _, shape = pareto_smoothed(log_weights)
    return shape


def pareto_smoothed(log_weights: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], float]:
    """Weights whose largest are replaced by quantiles of the Pareto distribution that fits them.

    Args:
        log_weights: (n,), any constant added.

    Returns:
        Log weights, normalised and in their order, and `pareto_shape`; where that is NaN or -inf,
        the weights as they were.

    Raises:
        InputError: ArviZ is not installed.
    """
    major = _major()
    values = log_weights.astype(np.float64)
    values = values - np.logaddexp.reduce(values)
    tail = int(np.ceil(min(values.size / 5, 3 * np.sqrt(values.size))))  # as ArviZ cuts it
    if tail < 5:
        return values, float("nan")
    largest = np.sort(values)[-tail:]
    if largest[0] == largest[-1]:
        return values, float("-inf")
    if major >= 1:
        from arviz_stats.base import array_stats  # pyright: ignore[reportMissingImports]

        smoothed, shape = array_stats.psislw(-values)  # of log likelihoods, negated there
    else:
        smoothed, shape = _arviz_0().psislw(values)
    if not np.isfinite(shape):
        return values, float("nan")
    return smoothed - np.logaddexp.reduce(smoothed), float(shape)


def convergence(values: np.ndarray) -> dict[str, np.ndarray]:
    """What ArviZ says of Markov chains.

    Args:
        values: (chains, draws, *entries).

    Returns:
        ``"mcse"`` of the mean, ``"ess_bulk"``, ``"ess_tail"`` and ``"r_hat"``, each of the shape of
        the entries; NaN where all values are equal, or there are fewer than four draws.

    Raises:
        InputError: ArviZ is not installed.
    """
    major, values = _major(), values.astype(np.float64)
    if values.shape[1] < 4:
        names = ("mcse", "ess_bulk", "ess_tail", "r_hat")
        return {name: np.full(values.shape[2:], np.nan) for name in names}
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # 0 / 0 where values are equal
        warnings.simplefilter("ignore", RuntimeWarning)
        found = _convergence_1(values) if major >= 1 else _convergence_0(values)
    constant = np.all(values == values[:1, :1], axis=(0, 1))
    return {name: np.where(constant, np.nan, np.asarray(value)) for name, value in found.items()}


def _convergence_0(values: np.ndarray) -> dict[str, Any]:
    az = _arviz_0()
    data = az.convert_to_dataset({"x": values})
    return {
        "mcse": az.mcse(data, method="mean")["x"],
        "ess_bulk": az.ess(data, method="bulk")["x"],
        "ess_tail": az.ess(data, method="tail")["x"],
        "r_hat": az.rhat(data, method="rank")["x"],
    }


def _convergence_1(values: np.ndarray) -> dict[str, Any]:
    from arviz_stats.base import array_stats  # pyright: ignore[reportMissingImports]

    axes = {"chain_axis": 0, "draw_axis": 1}
    return {
        "mcse": array_stats.mcse(values, **axes, method="mean"),
        "ess_bulk": array_stats.ess(values, **axes, method="bulk"),
        "ess_tail": array_stats.ess(values, **axes, method="tail", prob=(0.05, 0.95)),
        "r_hat": array_stats.rhat(values, **axes, method="rank"),
    }
