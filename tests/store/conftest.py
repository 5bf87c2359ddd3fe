"""A copy of the digits prior that may be damaged."""

import shutil

import pytest

from smcdiff.store.shipped import shipped_folder


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(shipped_folder() / "mnist", tmp_path / "mnist")
