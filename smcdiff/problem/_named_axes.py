"""The names of the axes of a model's sites: its plates, as ``arviz.from_numpyro`` names them."""

from __future__ import annotations

import numpy as np

from smcdiff.problem._model_checks import TAKEN
from smcdiff.problem._sites import Site

NamedAxes = tuple[tuple[str, tuple[str, ...]], ...]
"""Pairs of a site and the names of all its axes."""


def named_axes(trace: dict[str, Site]) -> NamedAxes:
    """The sites with a named axis, and the names of all their axes.

    The axis of a plate has the plate's name. Event axes have the names that the site itself gives,
    as in ``numpyro.sample("x", ..., infer={"event_dims": ["row", "column"]})``. The others are
    ``site_dim_0`` and so on, and so are those whose names would collide in the export.

    Args:
        trace: sites of the model.
    """
    found = {n: s for n, s in trace.items() if s["type"] in ("sample", "deterministic")}
    defaults = {name: _defaults(name, np.ndim(site["value"])) for name, site in found.items()}
    used = {*TAKEN, *found, *(axis for axes in defaults.values() for axis in axes)}
    named = []
    for name, site in found.items():
        axes = list(defaults[name])
        for position, axis in _own(site).items():
            if axis not in used and "/" not in axis and axis not in axes:
                axes[position] = axis
        if tuple(axes) != defaults[name]:
            named.append((name, tuple(axes)))
    return tuple(named)


def _defaults(name: str, ndim: int) -> tuple[str, ...]:
    return tuple(f"{name}_dim_{i}" for i in range(ndim))


def _own(site: Site) -> dict[int, str]:
    """Position of an axis -> its name."""
    shape = np.shape(site["value"])
    plates = sorted(site.get("cond_indep_stack", ()), key=lambda plate: plate.dim)
    if site["type"] == "sample":
        batch = len(site["fn"].batch_shape)
        positions = [batch + plate.dim for plate in plates]
    else:  # nobody knows where its batch ends: its first axes are the plates'
        batch, positions = len(plates), list(range(len(plates)))
    own = {
        position: plate.name for position, plate in zip(positions, plates, strict=True)
        if 0 <= position < len(shape) and shape[position] == plate.size
    }  # fmt: skip
    events = (site.get("infer") or {}).get("event_dims", ())
    return own | {i: str(e) for i, e in enumerate(events, batch) if i < len(shape)}
