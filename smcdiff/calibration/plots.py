"""Pictures of calibrations; several samplers in one.

A line inside its band is what a right posterior gives: the band holds the whole curve with the
stated probability. Where several are drawn it is that of the one with the fewest simulations, which
is the widest. Figures are made without pyplot, so that no global state changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smcdiff.calibration._record import CalibrationRecord
from smcdiff.calibration._uniformity import band
from smcdiff.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4
_BAND = {"color": "0.85", "linewidth": 0, "zorder": 0}


def plot_ranks(
    calibrations: CalibrationRecord | Mapping[str, CalibrationRecord],
    *,
    names: Sequence[str] | None = None,
    histogram: bool = False,
    prob: float = 0.95,
    axes: Any = None,
) -> np.ndarray:
    """The ranks of each quantity: their distribution function less the uniform one.

    A line above zero on the left and below on the right (more ranks at both ends) is a posterior
    that is too narrow, the reverse one that is too wide; above or below throughout is a shift.

    Args:
        calibrations: one, or several by the name of the sampler, drawn over each other.
        names: quantities to show; None is all, TARP's among them.
        histogram: draw histograms in the place of distribution functions.
        prob: probability with which a right posterior stays in the grey band: the whole line, or
            all bars of a histogram.
        axes: Matplotlib axes, one for each quantity; None makes a figure.

    Returns:
        The axes; ``axes[0].figure.savefig(path)`` writes the picture.

    Raises:
        InputError: no such quantity, or another number of axes.
    """
    several = _named(calibrations)
    first = next(iter(several.values()))
    shown = list(names) if names is not None else [*first.ranks, *first.tarp_ranks]
    axes = _axes(len(shown), axes)
    for axis, name in zip(axes, shown, strict=True):
        draw = _histogram if histogram else _differences
        draw(axis, name, several, prob)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_xlabel("rank / L", fontsize=8)
    if len(several) > 1:
        axes[0].legend(fontsize=7)
    return axes


def plot_coverage(
    calibrations: CalibrationRecord | Mapping[str, CalibrationRecord],
    *,
    name: str = "TARP",
    prob: float = 0.95,
    axis: Axes | None = None,
) -> Axes:
    """Coverage of credible regions against their probability.

    Below the diagonal the posterior is too narrow (or shifted), above it too wide.

    Args:
        calibrations: one, or several by the name of the sampler, drawn over each other.
        name: ``"TARP"``, ``"TARP x"``, or a quantity, for its central intervals.
        prob: probability with which a right posterior's whole line lies in the grey band.
        axis: where to draw; None makes a figure.

    Returns:
        The axis; ``axis.figure.savefig(path)`` writes the picture.

    Raises:
        InputError: no such quantity.
    """
    several = _named(calibrations)
    (drawn,) = _axes(1, None if axis is None else [axis])
    smallest = min(several.values(), key=lambda record: len(record.simulations))
    low, high = smallest.coverage_band(name, prob)
    levels = smallest.coverage(name).prob
    drawn.fill_between([0, *levels], [0, *low], [0, *high], **_BAND)
    drawn.plot([0, 1], [0, 1], color="0.4", linewidth=0.8, linestyle="--")
    for label, record in several.items():
        found = record.coverage(name)
        drawn.plot([0, *found.prob], [0, *found.share], label=label, linewidth=1.3)
    drawn.set_xlim(0, 1)
    drawn.set_ylim(0, 1)
    drawn.set_aspect("equal")
    drawn.set_xlabel("probability of the region", fontsize=8)
    drawn.set_ylabel("share of truths inside", fontsize=8)
    drawn.set_title(name if name.startswith("TARP") else f"{name}: central intervals", fontsize=9)
    drawn.tick_params(labelsize=7)
    if len(several) > 1:
        drawn.legend(fontsize=7)
    return drawn


def _named(calibrations: Any) -> dict[str, CalibrationRecord]:
    several = calibrations if isinstance(calibrations, Mapping) else {"": calibrations}
    if not several:
        raise InputError("plot: no calibration is given")
    return dict(several)


def _axes(count: int, given: Any) -> np.ndarray:
    """The axes to draw on, flat."""
    if given is not None:
        flat = np.ravel(np.asarray(given, object))
        if len(flat) != count:
            raise InputError(f"plot: {len(flat)} axes are given, and {count} quantities are shown")
        return flat
    from matplotlib.figure import Figure

    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    size = (4.2, 4.0) if count == 1 else (2.7 * columns, 2.4 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.set_axis_off()
    return axes[:count]


def _differences(
    axis: Axes, name: str, several: Mapping[str, CalibrationRecord], prob: float
) -> None:
    """The distribution functions of the ranks less the uniform one, and their band."""
    smallest = min(several.values(), key=lambda record: len(record.simulations))
    cuts, _ = _steps(smallest, name)
    low, high = band(max(len(smallest.simulations), 1), _chances(smallest), prob)
    inner = cuts[1:-1]
    axis.fill_between(cuts, [0, *(low - inner), 0], [0, *(high - inner), 0], **_BAND)
    axis.axhline(0.0, color="0.4", linewidth=0.8, linestyle="--")
    for label, record in several.items():
        cuts, share = _steps(record, name)
        axis.plot(cuts, share - cuts, label=label, linewidth=1.2)
    axis.set_xlim(0, 1)


def _histogram(
    axis: Axes, name: str, several: Mapping[str, CalibrationRecord], prob: float
) -> None:
    """Histograms of the ranks in about 20 bins, and the band that holds all bars."""
    from scipy.stats import binom

    smallest = min(several.values(), key=lambda record: len(record.simulations))
    for label, record in several.items():
        edges = _edges(record.num_draws + 1)
        counts = np.histogram(record.ranks_of(name), edges)[0]
        heights = counts / max(counts.sum(), 1) / np.diff(edges) * edges[-1]
        axis.stairs(heights, edges / edges[-1], label=label, linewidth=1.2)
    edges, total = _edges(smallest.num_draws + 1), max(len(smallest.simulations), 1)
    chances = np.diff(edges) / edges[-1]
    tail = (1.0 - prob) / len(chances) / 2  # Bonferroni, over the bars
    low, high = (binom.ppf(level, total, chances) / total / chances for level in (tail, 1 - tail))
    middle = np.repeat(edges / edges[-1], 2)[1:-1]
    axis.fill_between(middle, np.repeat(low, 2), np.repeat(high, 2), **_BAND)
    axis.axhline(1.0, color="0.4", linewidth=0.8, linestyle="--")
    axis.set_xlim(0, 1)
    axis.set_ylim(bottom=0)


def _edges(cells: int) -> np.ndarray:
    """Edges of bins of whole cells, of nearly equal width."""
    return np.unique(np.round(np.linspace(0, cells, min(cells, 20) + 1)).astype(int))


def _chances(record: CalibrationRecord) -> tuple[float, ...]:
    return (1.0 / (record.num_draws + 1),) * (record.num_draws + 1)


def _steps(record: CalibrationRecord, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Cuts between the ranks, over L + 1, and the share of ranks below each."""
    cells = record.num_draws + 1
    counts = np.bincount(record.ranks_of(name), minlength=cells)
    return np.arange(cells + 1) / cells, np.append(0, np.cumsum(counts)) / max(counts.sum(), 1)
