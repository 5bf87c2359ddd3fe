"""The run that `test_checkpoint` kills: importable, so that a fork server can start it."""

import os
from pathlib import Path

import numpy as np


def run(folder: Path, output: Path) -> None:
    """Filters with a checkpoint after every step, tells when it starts, and saves the result."""
    import jax

    from smcdiff.smc import Checkpoint, particle_filter, segments
    from tests.smc.models import LinearGaussian, observations

    segments.SECONDS = 0.0
    (output / f"started-{os.getpid()}").touch()
    result = particle_filter(
        jax.random.key(0),
        LinearGaussian(observations(41)),
        64,
        40,
        num_chains=2,
        store_ancestors=True,
        collect=lambda state, info: {"mean": state.particles.mean(axis=-1)},
        checkpoint=Checkpoint(folder, {"problem": "walk"}, every=0.0),
    )
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(result)]
    np.savez(output / "result.npz", *leaves)
