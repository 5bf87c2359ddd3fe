"""Files for the commands to read, good and damaged, in the folder where they run."""

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


def text(name, content="text"):
    Path(name).write_text(content)
    return name


def damaged(name, content, size):
    Path(name).write_bytes(Path(content).read_bytes()[:size])
    return name
