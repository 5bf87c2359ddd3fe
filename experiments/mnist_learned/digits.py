"""Tasks on digits, and digits that no training has seen, for experiments with learned priors."""

import sys
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import load_examples, operators
from smcdiff.base._pixels import to_unit_range

sys.path.insert(0, str(Path(__file__).parent.parent / "mnist_prior"))
import classifier

NOISE = 0.1
TASKS = ["half", "box", "blur", "super-resolution"]


def tasks(shape) -> dict:
    """The operators, each on images."""
    height, width, _ = shape
    rows, columns = np.indices((height, width))
    quarter = height // 4
    inner = (abs(rows - height / 2 + 0.5) < quarter) & (abs(columns - width / 2 + 0.5) < quarter)
    return {
        "half": operators.Mask.of((columns < width // 2)[..., None]),
        "box": operators.Mask.of(~inner[..., None]),
        "blur": operators.GaussianBlur(shape, width=2.0),
        "super-resolution": operators.BlockDownsample(shape, 4),
    }


def model(prior, operator, y=None):
    """An image seen through an operator, with noise."""
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator(x), NOISE).to_event(), obs=y)


def held_out(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images in [-1, 1] that no training has seen, and their labels."""
    if not classifier.DATA.exists():
        images, labels = load_examples("mnist")
        return images[:count], labels[:count]
    with np.load(classifier.DATA) as arrays:
        chosen = np.random.default_rng(0).permutation(len(arrays["y_test"]))[:count]
        return to_unit_range(arrays["x_test"][chosen, ..., None]), arrays["y_test"][chosen]
