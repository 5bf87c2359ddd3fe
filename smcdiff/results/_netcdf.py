"""A run as a netCDF file, which does not depend on the version of ArviZ.

The file holds `smcdiff.results._datatree.particle_groups`; what is no array is JSON in its
attributes. It is built in memory and written whole: a file system that is full in the middle of
HDF5's own writing ends the process (HDF5 closes what it cannot flush, and crashes).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from smcdiff.base._files import check_file, write_whole
from smcdiff.errors import InputError
from smcdiff.results._axes import Axes
from smcdiff.results._datatree import particle_groups
from smcdiff.results._particles import WeightedParticles

_FORMAT = "smcdiff-posterior-4"


def write(particles: WeightedParticles, path: Path) -> None:
    """Writes a run; an unfinished file never takes the name.

    Args:
        particles: the run.
        path: file to write, or to replace.

    Raises:
        InputError: the file cannot be written.
    """
    import xarray

    tree = xarray.DataTree.from_dict(particle_groups(particles, Axes(particles.dims)))
    tree.attrs.update(
        smcdiff_format=_FORMAT,
        weighted=int(particles.weighted),
        chains_alike=int(particles.chains_alike),
        run=json.dumps(particles.attrs, default=str),
        # Files order variables by name.
        sites=json.dumps(list(particles.samples)),
        terms=json.dumps(list(particles.pointwise_log_likelihood)),
        observed=json.dumps(list(particles.observed)),
        dims=json.dumps(particles.dims),
    )
    # With a sum of each chunk HDF5 refuses damaged arrays; a scalar has no chunks.
    summed = {
        node.path: {
            str(name): {"fletcher32": True}
            for name, a in node.data_vars.items()
            if a.size and a.ndim
        }
        for node in tree.subtree
    }
    write_whole(path, tree.to_netcdf(engine="h5netcdf", encoding=summed))


def read(path: Path) -> dict[str, Any]:
    """The fields of `WeightedParticles` that `write` wrote.

    Raises:
        InputError: no such file, or not a complete smcdiff posterior.
    """
    import h5py
    import xarray

    check_file(path, "a posterior.nc that smcdiff wrote")
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: not a posterior written by smcdiff; give a posterior.nc")
    try:
        # First: a file that h5netcdf cannot open leaves a traceback when it is collected.
        with h5py.File(path, "r") as file:
            _check_format(path, str(file.attrs.get("smcdiff_format")))
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            return _fields(tree.load())
    except InputError:
        raise
    except Exception as error:  # damaged bytes make h5py and xarray raise almost anything
        raise InputError(
            f"{path}: cannot be read as a posterior; it may be truncated or damaged, so run it"
            " again"
        ) from error


def read_attributes(path: Path) -> dict[str, Any]:
    """``WeightedParticles.attrs`` alone, without the arrays.

    Raises:
        InputError: not a complete smcdiff posterior.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            _check_format(path, str(file.attrs.get("smcdiff_format")))
            return json.loads(str(file.attrs["run"]))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a posterior; remove it") from error


def _check_format(path: Path, found: str) -> None:
    if found == _FORMAT:
        return
    if found.startswith("smcdiff-posterior-"):
        raise InputError(
            f"{path}: has the format {found} of another version of smcdiff, and this one reads"
            f" {_FORMAT}; run it again, or load it with the version that wrote it"
        )
    raise InputError(f"{path}: not a posterior written by smcdiff; give a posterior.nc")


def _fields(tree: Any) -> dict[str, Any]:
    smc, particles = tree["smc"].to_dataset(), tree["weighted_posterior"].to_dataset()

    def values(attribute: str, dataset: Any) -> dict[str, Any]:
        return {site: dataset[site].values for site in json.loads(tree.attrs[attribute])}

    return {
        "samples": values("sites", particles),
        "log_weights": particles["log_weight"].values,
        "log_evidence": smc["log_evidence"].values,
        "log_evidence_se": _errors(smc),
        "ess": smc["ess"].values,
        "founders": particles["founder"].values,
        "num_founders": smc["num_founders"].values,
        "log_evidence_increments": smc["log_evidence_increment"].values,
        "resampled": smc["resampled"].values.astype(bool),
        "log_snr": smc["log_snr"].values,
        "pointwise_log_likelihood": values("terms", tree["weighted_log_likelihood"]),
        "observed": values("observed", tree["observed_data"]),
        "weighted": bool(tree.attrs["weighted"]),
        "chains_alike": bool(tree.attrs.get("chains_alike", 0)),  # older files have none
        "ancestors": smc["ancestors"].values if "ancestors" in smc else None,
        "prior_widths": particles["prior_widths"].values if "prior_widths" in particles else None,
        "dims": {n: tuple(d) for n, d in json.loads(tree.attrs.get("dims", "{}")).items()},
        "attrs": json.loads(tree.attrs["run"]),
    }


def _errors(smc: Any) -> np.ndarray:
    """The standard errors of the log evidence, which older files do not have."""
    if "log_evidence_se" in smc:
        return smc["log_evidence_se"].values
    return np.full_like(smc["log_evidence"].values, np.nan)
