"""Saved and loaded; files that cannot be used; a disk that is full."""

import dataclasses
import subprocess
import sys

import h5py
import ml_dtypes
import numpy as np
import pytest
import xarray

from smcdiff import InputError, Posterior
from tests.results.records import importance, record


def assert_same(ours, theirs):
    for field in dataclasses.fields(Posterior):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(one, dict) and field.name != "attrs":
            assert list(one) == list(other)
            for name in one:
                assert one[name].dtype == other[name].dtype
                np.testing.assert_array_equal(one[name], other[name])
        elif isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other


def test_saved_and_loaded_is_the_same(tmp_path):
    ancestors = np.tile(np.arange(100), (2, 4, 1))
    samples = {
        "z": np.ones((2, 100, 3), np.float32),
        "a count": np.ones((2, 100), np.int32),
        "flag": np.ones((2, 100), bool),
    }
    observed = {"y": np.array([1, 2]), "b": np.array(0.5)}
    for number, posterior in enumerate(
        (importance(), record(samples=samples, ancestors=ancestors, observed=observed))
    ):
        file = posterior.save(tmp_path / f"{number}.nc")
        assert_same(posterior, Posterior.load(file))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.nc", "1.nc"]


def test_older_files_have_no_standard_error(tmp_path):
    file = importance().save(tmp_path / "posterior.nc")
    with h5py.File(file, "a") as opened:
        del opened["smc/log_evidence_se"]
    assert np.isnan(Posterior.load(file).log_evidence_se).tolist() == [True, True]


def test_values_that_netcdf_has_no_type_for(tmp_path):
    short = np.arange(200.0).reshape(2, 100).astype(ml_dtypes.bfloat16)
    file = record(samples={"x": short}).save(tmp_path / "posterior.nc")
    np.testing.assert_array_equal(Posterior.load(file).samples["x"], short.astype(np.float32))


def test_weights_off(tmp_path):
    posterior = record(weighted=False, log_evidence=np.full(2, np.nan))
    assert_same(posterior, Posterior.load(posterior.save(tmp_path / "posterior.nc")))


def test_chains_that_count_alike(tmp_path):
    posterior = record(chains_alike=True, prior_widths=np.ones((2, 100), np.float32))
    assert_same(posterior, Posterior.load(posterior.save(tmp_path / "posterior.nc")))


def test_file_is_plain_netcdf_and_holds_nothing_twice(tmp_path):
    posterior = importance()
    file = posterior.save(tmp_path / "posterior.nc")
    with xarray.open_datatree(file, engine="h5netcdf") as tree:
        np.testing.assert_array_equal(tree["weighted_posterior/x"], posterior.samples["x"])
        assert set(tree.children) == {
            "weighted_posterior", "weighted_log_likelihood", "smc", "observed_data",
        }  # fmt: skip


def test_files_that_cannot_be_used(tmp_path):
    posterior = importance()
    file = posterior.save(tmp_path / "posterior.nc")
    with pytest.raises(InputError, match="exists"):
        posterior.save(file)
    posterior.save(file, overwrite=True)
    with pytest.raises(InputError, match="No such file or directory.*choose a folder"):
        posterior.save(tmp_path / "missing" / "posterior.nc")
    with pytest.raises(InputError, match="no such file"):
        Posterior.load(tmp_path / "other.nc")
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(InputError, match="truncated"):
        Posterior.load(file)
    place = whole.index(posterior.samples["x"].tobytes()[:16])
    file.write_bytes(whole[:place] + b"\xff\xff" + whole[place + 2 :])
    with pytest.raises(InputError, match="truncated or damaged"):
        Posterior.load(file)
    file.write_bytes(whole)
    with h5py.File(file, "a") as opened:
        opened.attrs["smcdiff_format"] = "smcdiff-posterior-3"
    with pytest.raises(InputError, match="smcdiff-posterior-3 of another version"):
        Posterior.load(file)
    with h5py.File(file, "w") as opened:
        opened["x"] = np.zeros(3)
    with pytest.raises(InputError, match="not a posterior written by smcdiff"):
        Posterior.load(file)


FULL_DISK = """
import pathlib, resource, sys
from smcdiff import InputError
from tests.results.records import importance

folder, posterior = pathlib.Path(sys.argv[1]), importance(particles=5000)
(folder / "old.nc").write_text("an older file")
resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 1024, 8 * 1024))
for name in ("new.nc", "old.nc"):
    try:
        posterior.save(folder / name, overwrite=True)
    except InputError as error:
        print(error)
"""


def test_full_disk_leaves_nothing_and_names_the_remedy(tmp_path):
    """In a process of its own, which HDF5 used to end by a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("File too large" in line and " MB to spare" in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["old.nc"]
    assert (tmp_path / "old.nc").read_text() == "an older file"
