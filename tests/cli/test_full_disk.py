"""A disk that is full in the middle of a command: exit code 2, one line, and nothing left."""

import numpy as np
import pytest

from tests.cli.processes import start

COMMANDS = {
    "posterior.nc": "solve inpaint --particles 4 --steps 3 --chains 1 --output out",
    "samples.npy": "sample --number 4 --steps 3 --output out",
    "checkpoint.safetensors": (
        "train data.npy --output out --steps 4 --channels 16 --batch-size 4 --sample-every 2"
    ),
}
SLOW = ("posterior.nc", "checkpoint.safetensors")


@pytest.mark.parametrize(
    "file", [pytest.param(f, marks=pytest.mark.slow) if f in SLOW else f for f in COMMANDS]
)
def test_a_full_disk(tmp_path, file):
    images = np.random.default_rng(0).integers(0, 255, (64, 8, 8), np.uint8)
    np.save(tmp_path / "data.npy", images)
    process = start(tmp_path, *COMMANDS[file].split(), limit=8192)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    lines = err.splitlines()
    assert lines[-1].startswith(f"smcdiff: out/{file}: cannot be written (File too large); ")
    # Progress, and nothing else.
    assert all("steps," in line or "begins" in line for line in lines[:-1]), err
    assert [path.name for path in tmp_path.iterdir()] == ["data.npy"]
