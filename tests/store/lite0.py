"""Random weights of EfficientNet-Lite0 under PyTorch's names, and pictures; NumPy alone."""

import zlib

import numpy as np

# Repeats, width, expansion, channels before and after.
ROWS = [
    (1, 3, 1, 32, 16), (2, 3, 6, 16, 24), (2, 5, 6, 24, 40), (3, 3, 6, 40, 80),
    (3, 5, 6, 80, 112), (4, 5, 6, 112, 192), (1, 3, 6, 192, 320),
]  # fmt: skip
SIZES = {"colours": (2, 41, 29, 3), "grey": (2, 150, 130, 1)}
"""Of pictures that are enlarged, and of such that are made smaller."""


def draw(name, shape):
    """Standard normal numbers, the same for ever (NumPy promises so of RandomState)."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def _convolution(name, norm, out, size, width):
    fan_in = size * width**2
    return {
        f"{name}.weight": np.sqrt(2.0 / fan_in) * draw(name, (out, size, width, width)),
        f"{norm}.weight": 1.0 + 0.1 * draw(f"{norm}.weight", out),
        f"{norm}.bias": 0.2 + 0.2 * draw(f"{norm}.bias", out),
        f"{norm}.running_mean": 0.2 * draw(f"{norm}.running_mean", out),
        f"{norm}.running_var": 1.0 + draw(f"{norm}.running_var", out) ** 2,
    }


def random_weights():
    """All but the classifier's; rounding errors do not grow from block to block."""
    arrays = _convolution("_conv_stem", "_bn0", 32, 3, 3)
    block = 0
    for repeats, width, expansion, before, after in ROWS:
        for repeat in range(repeats):
            size, place = after if repeat else before, f"_blocks.{block}"
            inner = size * expansion
            if expansion > 1:
                arrays |= _convolution(f"{place}._expand_conv", f"{place}._bn0", inner, size, 1)
            arrays |= _convolution(f"{place}._depthwise_conv", f"{place}._bn1", inner, 1, width)
            arrays |= _convolution(f"{place}._project_conv", f"{place}._bn2", after, inner, 1)
            block += 1
    arrays |= _convolution("_conv_head", "_bn1", 1280, 320, 1)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def pictures(name):
    """Smooth ones in [-1, 1], of `SIZES`."""
    count, height, width, channels = SIZES[name]
    coarse = np.tanh(draw(name, (count, 6, 5, channels)))
    rows = np.linspace(0, 5, height)[:, None] - np.arange(6)
    columns = np.linspace(0, 4, width)[:, None] - np.arange(5)
    hats = (np.maximum(0.0, 1.0 - np.abs(offsets)) for offsets in (rows, columns))
    return np.einsum("bijc,hi,wj->bhwc", coarse, *hats).astype(np.float32)
