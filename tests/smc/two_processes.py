"""The filter over two processes; `test_devices` starts both.

python -m tests.smc.two_processes ADDRESS PROCESS OUTPUT
"""

import sys
from pathlib import Path

import jax
import numpy as np


def main(address: str, process: int, output: Path) -> None:
    """Runs, stops, resumes, and saves what this process can read."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
    from jax.sharding import Mesh

    from smcdiff.smc import Checkpoint, particle_filter
    from tests.smc.models import LinearGaussian, observations

    devices = np.array(jax.devices())
    assert len(devices) == 2 and len(jax.local_devices()) == 1
    model, saved = LinearGaussian(observations(21)), {}

    def run(mesh, **options):
        options = {"store_ancestors": True, "mesh": mesh, **options}
        return particle_filter(jax.random.key(0), model, 64, 20, **options)

    for name, mesh, num_chains in (
        ("particles", Mesh(devices, ("particles",)), None),
        ("chains", Mesh(devices, ("chains",)), 2),
    ):
        result = run(mesh, num_chains=num_chains)
        saved |= {f"{name}.{field}": value for field, value in result._asdict().items()}
    steps = []

    def stop(t, num_steps, info):
        steps.append(t)
        if t == 7:
            raise InterruptedError

    mesh = Mesh(devices, ("particles",))
    checkpoint = Checkpoint(output / "checkpoint", every=0.0)
    try:
        run(mesh, checkpoint=checkpoint, progress=stop)
    except InterruptedError:
        assert steps == list(range(8))  # the same lengths in all processes
    result = run(
        mesh,
        checkpoint=checkpoint,
        progress=lambda t, n, info: steps.append(t),
        collect=None,
    )
    assert steps[8:] == list(range(7, 21))
    saved |= {f"resumed.{field}": value for field, value in result._asdict().items()}
    saved = {name: np.asarray(value) for name, value in saved.items() if value is not None}
    np.savez(output / f"{process}.npz", **saved)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
