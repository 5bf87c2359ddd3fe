"""Images and labels from idx files, mapped into memory."""

import numpy as np
import pytest

from smcdiff import InputError
from smcdiff.training._data import load_images, load_labels, split


def _write(path, array):
    shape = np.array(array.shape, ">u4").tobytes()
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes())
    return path


def test_idx_files_and_their_labels(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 4, 3), np.uint8)
    file = _write(tmp_path / "train-images-idx3-ubyte", images)
    _write(tmp_path / "train-labels-idx1-ubyte", np.arange(5))
    found = load_images(file)
    assert isinstance(found.base, np.memmap) or isinstance(found, np.memmap)
    np.testing.assert_array_equal(found[..., 0], images)
    np.testing.assert_array_equal(load_labels(file, 5), np.arange(5))
    np.save(tmp_path / "a.npy", images)
    assert isinstance(load_images(tmp_path / "a.npy"), np.memmap)


def test_files_that_are_no_images(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not images")
    with pytest.raises(InputError, match=r"neither \.npz, \.npy nor an idx file"):
        load_images(text)
    short = _write(tmp_path / "short-images-idx3-ubyte", np.zeros((2, 2, 2)))
    short.write_bytes(short.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        load_images(short)


def test_held_out_images_are_drawn_at_random_and_stay_the_same():
    used, held_out = split(6000, 64)
    assert len(held_out) == 100 and len(used) == 5900
    assert not set(used) & set(held_out)
    # 100 of 6,000 at random: a tenth of the range holds 10 +- 3 of them.
    counts = np.histogram(held_out, bins=10, range=(0, 6000))[0]
    assert counts.max() < 25 and counts.min() > 0
    np.testing.assert_array_equal(split(6000, 32)[1], held_out)
