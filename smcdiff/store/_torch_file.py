"""Tensors of a file that PyTorch wrote before its version 1.6, read without PyTorch.

Such a file is a pickle of a dictionary of tensors, followed by the bytes of their storages. A
pickle can call any function that it names. The reader here knows four names, which are all that a
dictionary of tensors needs, and refuses a file at the first other one, before anything is called.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from smcdiff.base._files import check_file
from smcdiff.errors import InputError, first_line

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
_COUNT = struct.Struct("<q")
_DAMAGED = (
    pickle.UnpicklingError, EOFError, OSError, ValueError, TypeError, KeyError, AttributeError,
    IndexError, OverflowError, MemoryError, struct.error,
)  # fmt: skip
"""What Python raises on a file that is cut off, damaged or made to mislead."""


class _Storage(NamedTuple):
    """Numbers that tensors are views of: their name in the file, type and count."""

    key: str
    dtype: np.dtype
    count: int


class _View(NamedTuple):
    """A tensor before its storage is read; offset and strides in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, values: np.ndarray) -> np.ndarray:
        """The tensor as a copy, with every entry within the storage."""
        if len(self.shape) != len(self.strides) or min(self.offset, *self.shape, 0) < 0:
            raise ValueError(f"a tensor of shape {self.shape} has strides {self.strides}")
        if min(self.strides, default=0) < 0:
            raise ValueError(f"a tensor has strides {self.strides}")
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((length - 1) * stride for length, stride in steps)
        if 0 not in self.shape and last >= len(values):
            raise ValueError(f"a tensor reaches to number {last} of {len(values)}")
        strides = tuple(stride * values.itemsize for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)
        return np.array(view, order="C")


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> _View:
    """In the place of ``torch._utils._rebuild_tensor_v2``; gradients and hooks are left aside."""
    return _View(storage, offset, shape, strides)


_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    **{("torch", name): name for name in _DTYPES},
}
"""All that a file may name; storages stand for their own names, which nothing can be called on."""


class _Refused(Exception):
    """A name that is not known, or a pickle that is no dictionary of tensors."""


class _Restricted(pickle.Unpickler):
    """Reads pickles that name nothing but `_NAMES`."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the file stands for."""
        if (module, name) not in _NAMES:
            raise _Refused(f"it names {module}.{name}, which a file of tensors does not need")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage, by what the file says about it."""
        kind, name, key, _, count, view = pid
        if kind != "storage" or view is not None or name not in _DTYPES:
            raise _Refused("it has storages of a kind that is not known")
        return _Storage(key, _DTYPES[name], count)


def read_torch_file(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a file in PyTorch's old format, float32 and int64, each a copy.

    Args:
        file: a dictionary of tensors that ``torch.save`` wrote.

    Raises:
        InputError: no file, not a whole file of this format, or one that holds anything else than
            tensors by their names.
    """
    check_file(file, "a file of tensors that torch.save wrote")
    try:
        with file.open("rb") as content:
            views = _header(content)
            storages = _read_storages(content, {view.storage for view in views.values()})
        return {name: view.of(storages[view.storage.key]) for name, view in views.items()}
    except _Refused as error:
        raise InputError(
            f"{file}: refused, for {error}; give a file of tensors alone, from where you trust"
        ) from error
    except _DAMAGED as error:
        raise InputError(
            f"{file}: not a whole file of PyTorch's format before 1.6 ({first_line(error)});"
            " download it again"
        ) from error


def _header(content: BinaryIO) -> dict[str, _View]:
    """The tensors by their names, from a file at its start."""
    magic, protocol, system = (_Restricted(content).load() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise ValueError("it does not begin as such a file does")
    if system["little_endian"] is not True:
        raise ValueError("its bytes are in another order")
    views = _Restricted(content).load()
    if not isinstance(views, dict):
        raise _Refused("it holds no dictionary")
    for name, view in views.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise _Refused(f"its entry {name!r} is no tensor")
        if not isinstance(view.storage, _Storage):
            raise _Refused(f"its tensor '{name}' has no storage")
    return dict(views)


def _read_storages(content: BinaryIO, storages: set[_Storage]) -> dict[str, np.ndarray]:
    """The numbers of all storages, which lie in the file one after the other."""
    by_key, values = {storage.key: storage for storage in storages}, {}
    for key in _Restricted(content).load():
        storage = by_key[key]
        (count,) = _COUNT.unpack(content.read(_COUNT.size))
        if count != storage.count:
            raise ValueError(f"a storage has {count} numbers, not {storage.count}")
        size = count * storage.dtype.itemsize
        data = content.read(size)
        if len(data) != size:
            raise EOFError(f"it ends within a storage, {size - len(data)} bytes too early")
        values[key] = np.frombuffer(data, storage.dtype)
    return values
