"""Files of PyTorch's old format: what torch wrote, and what is refused before it does anything."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from smcdiff import InputError
from smcdiff.store._torch_file import read_torch_file

FILE = Path(__file__).parent / "references" / "tensors.pth"
"""Of make_references.py."""
START = b"".join(
    pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)


class Call:
    """A pickle that calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.fixture
def write(tmp_path):
    def write(content):
        file = tmp_path / "tensors.pth"
        file.write_bytes(content)
        return file

    return write


def changed(old, new):
    content = FILE.read_bytes()
    assert content.count(old) >= 1
    return content.replace(old, new)


def test_tensors_are_those_that_torch_wrote():
    """Strides that are not in order, a part of a storage, integers, and no dimension at all."""
    tensors = read_torch_file(FILE)
    numbers = np.arange(24.0, dtype=np.float32)
    expected = {
        "turned": numbers.reshape(2, 3, 4).transpose(2, 0, 1), "part": numbers[5:9],
        "count": np.int64(7), "parameter": np.ones(2, np.float32),
    }  # fmt: skip
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype and tensors[name].flags.c_contiguous


def test_a_tensor_stays_within_its_storage(write):
    """4 numbers from the 20th are the last of 24; from the 21st one is missing."""
    tensors = read_torch_file(write(changed(b"QK\x05", b"QK\x14")))
    np.testing.assert_array_equal(tensors["part"], [20.0, 21.0, 22.0, 23.0])
    with pytest.raises(InputError, match="a tensor reaches to number 24 of 24"):
        read_torch_file(write(changed(b"QK\x05", b"QK\x15")))


@pytest.mark.parametrize("start", [b"", START], ids=["first", "later"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("call", [Call(os.mkdir, "made"), Call(eval, "__import__('os').abort()")])
def test_nothing_is_called(write, tmp_path, monkeypatch, start, protocol, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="for it names (posix.mkdir|(__builtin__|builtins).eval)"):
        read_torch_file(write(start + pickle.dumps(call, protocol)))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"_rebuild_tensor_v2", b"_rebuild_parameter", "names torch._utils._rebuild_parameter"),
        (b"torch\nFloatStorage", b"torch\nHalfStorage", "names torch.HalfStorage"),
        (b"ccollections\nOrderedDict", b"ccollections\nUserDict", "names collections.UserDict"),
        (b"storage", b"modules", "storages of a kind that is not known"),
    ],
)
def test_other_names_are_refused(write, old, new, message):
    with pytest.raises(InputError, match=f"refused, for it (names|has) .*{message.split()[-1]}"):
        read_torch_file(write(changed(old, new)))


@pytest.mark.parametrize("content", [{"a": 1.0}, [1.0], {1: 2}])
def test_what_is_no_dictionary_of_tensors(write, content):
    with pytest.raises(
        InputError, match="refused, for (its entry .* is no tensor|it holds no dictionary)"
    ):
        read_torch_file(write(START + pickle.dumps(content, 2)))


@pytest.mark.parametrize("length", [0, 3, 30, 200, 640, -1])
def test_files_that_are_cut_off(write, length):
    with pytest.raises(InputError, match="not a whole file of PyTorch's format before 1.6"):
        read_torch_file(write(FILE.read_bytes()[:length]))


def test_other_files(write, tmp_path):
    for content in (b"PK\x03\x04 a zip file", pickle.dumps(5, 2) * 3, bytes(100)):
        with pytest.raises(InputError, match="not a whole file"):
            read_torch_file(write(content))
    with pytest.raises(InputError, match="no such file; give a file of tensors"):
        read_torch_file(tmp_path / "none.pth")
