"""Files for the commands to read, good and damaged, in the folder where they run."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

RANDOM = np.random.default_rng(0)


def array(name, values):
    np.save(name, values)
    return name


def picture(name, values):
    Image.fromarray(values).save(name)
    return name


def pixels(*shape):
    return RANDOM.integers(0, 255, shape).astype(np.uint8)


def header(name, shape):
    """An .npy file whose header claims this shape, and 784 numbers."""
    words = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + words.encode().ljust(117) + b"\n"
    Path(name).write_bytes(start + bytes(4 * 784))
    return name


def text(name, content="text"):
    Path(name).write_text(content)
    return name


def damaged(name, content, size):
    Path(name).write_bytes(Path(content).read_bytes()[:size])
    return name
