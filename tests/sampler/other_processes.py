"""Runs of `SMC` that the tests of this folder start in processes of their own.

python -m tests.sampler.other_processes checkpoint OUTPUT   a run with a checkpoint, to be killed
python -m tests.sampler.other_processes devices OUTPUT      a run over all devices that there are
python -m tests.sampler.other_processes processes OUTPUT ADDRESS PROCESS   one of two processes
"""

import sys
from pathlib import Path

import jax
import numpy as np


def _save(posterior, path):
    """Writes what a run gave, all its bits."""
    np.savez(
        path, samples=posterior.samples["x"], log_weights=posterior.log_weights,
        log_evidence=posterior.log_evidence, ess=posterior.ess, founders=posterior.founders,
    )  # fmt: skip


def _run(**options):
    from tests.sampler.models import run, sampler

    keys = ("checkpoint",)
    to_run = {name: options.pop(name) for name in keys if name in options}
    smc = sampler(num_particles=64, num_steps=12, num_chains=2, **options)
    return run(smc, **to_run)


def checkpoint(output: Path) -> None:
    """A segment per step and a checkpoint after each; says when it starts."""
    from smcdiff.smc import Checkpoint, segments

    segments.SECONDS = 0.0
    (output / "started").touch()
    kept = Checkpoint(output / "state", every=0.0)
    _save(_run(checkpoint=kept), output / "result.npz")


def devices(output: Path) -> None:
    """The default mesh over eight simulated devices, and one of them."""
    from jax.sharding import Mesh

    assert len(jax.devices()) == 8
    _save(_run(), output / "eight.npz")
    one = Mesh(np.array(jax.devices()[:1]), ("particles",))
    _save(_run(mesh=one), output / "one.npz")


def processes(output: Path, address: str, process: str) -> None:
    """Particles over two processes."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=int(process))
    from jax.sharding import Mesh

    mesh = Mesh(np.array(jax.devices()), ("particles",))
    _save(_run(mesh=mesh), output / f"{process}.npz")


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
