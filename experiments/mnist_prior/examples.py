"""Writes the real test digits that ship with the prior: two of each, from MNIST's test set.

python experiments/mnist_prior/examples.py
"""

from __future__ import annotations

import numpy as np
from classifier import DATA

from smcdiff.store.shipped import shipped_folder

EACH = 2

if __name__ == "__main__":
    with np.load(DATA) as arrays:
        images, labels = arrays["x_test"][..., None], arrays["y_test"]
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:EACH] for digit in range(10)])
    file = shipped_folder() / "mnist" / "examples.npz"
    np.savez_compressed(file, images=images[chosen], labels=labels[chosen])
