"""The reference models, and changed copies of them."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

REFERENCES = Path(__file__).parent / "references"
NAMES = ("bert", "t5_relu", "t5_gated_gelu")
CAPTIONS = ["two red circles above a blue square", "a green triangle", "",
            "three yellow squares left of one purple circle above four red triangles"]  # fmt: skip
"""Those of make_references.py."""


def outputs(name):
    """What transformers made: by "tokens" and "captions" their ids, mask and states."""
    with np.load(REFERENCES / name / "outputs.npz") as arrays:
        return dict(arrays)


def relative_error(found, expected):
    """Greatest error, over the greatest entry."""
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def copied(name, folder):
    """A copy of a reference model."""
    return Path(shutil.copytree(REFERENCES / name, folder / name))


def edit_json(file, **changes):
    """Changes entries of a JSON object; None takes one away."""
    values = json.loads(file.read_text()) | changes
    kept = {key: value for key, value in values.items() if value is not None}
    file.write_text(json.dumps(kept))


def edit_weights(folder, edit):
    """Changes the tensors of model.safetensors; ``edit`` changes a dictionary."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
