"""Memory per device and bytes moved per step against the number of devices: writes results.md.

    python experiments/devices/run.py            # about two minutes on two cores
    python experiments/devices/run.py --smoke    # what the tests run

A filter of image-sized particles on 1, 2, 4 and 8 simulated devices of the CPU (whose number is
fixed when JAX starts, so that a process of its own measures). Memory is XLA's own account of the
compiled step, per device. Bytes are counted twice: from the shapes of the collectives in the
compiled step, and from the ancestors of a run, which say how many rows had to leave their device
and in how many rounds they went.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from smcdiff.smc import ParticleFilter
from smcdiff.smc import _rows as rows

HERE = Path(__file__).parent
FULL = {"side": 64, "num_particles": 1024, "num_steps": 40}
SMOKE = {"side": 4, "num_particles": 64, "num_steps": 4}
DEVICES = (1, 2, 4, 8)
_WIDTH = {"pred": 1, "s8": 1, "u8": 1, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}


class Images(NamedTuple):
    """Images that drift, of which some pixels are observed with noise."""

    y: jax.Array  # (steps, pixels)
    side: jax.Array  # its shape is that of a row of pixels

    def init(self, key):
        return jax.random.normal(key, (self.side.size, self.side.size, 3))

    def step(self, key, t, prev):
        return 0.95 * prev + 0.3 * jax.random.normal(key, prev.shape)

    def log_potential(self, t, prev, particle):
        seen = particle[:, 0, 0][: self.y.shape[1]]
        return -0.5 * jnp.sum((self.y[t] - seen) ** 2)


def collectives(text: str) -> dict[str, int]:
    """Bytes of the results of all collectives of a compiled program, by kind, on one device."""
    found: dict[str, int] = {}
    pattern = r"= (.*?) (all-gather|all-to-all|all-reduce|collective-permute)(?:-start)?\("
    for result, kind in re.findall(pattern, text):
        size = 0
        for name, shape in re.findall(r"(\w+)\[([\d,]*)\]", result):
            size += _WIDTH[name] * int(np.prod([int(n) for n in shape.split(",") if n], dtype=int))
        found[kind] = found.get(kind, 0) + size
    return found


def routes(ancestors: np.ndarray, parts: int) -> tuple[int, int]:
    """Rows that leave their device, and rounds that the exchange takes, for one step."""
    n = ancestors.size
    target = np.repeat(np.arange(parts), n // parts)
    sent = np.zeros((parts, parts), int)  # (distance, device that receives)
    for to in range(parts):
        needed = np.unique(ancestors[target == to])
        np.add.at(sent, ((to - needed // (n // parts)) % parts, to), 1)
    longest = sent[1:].max(axis=1, initial=0)
    return int(sent[1:].sum()), int(np.sum(-(-longest // rows.capacity(n, parts))))


def measure(side: int, num_particles: int, num_steps: int) -> list[str]:
    """A row of the table for each number of devices."""
    model = Images(jax.random.normal(jax.random.key(1), (num_steps + 1, 4)), jnp.zeros(side))
    row_bytes = side * side * 3 * 4
    lines = []
    for parts in DEVICES:
        mesh = Mesh(np.array(jax.devices()[:parts]), ("particles",))
        settings = ParticleFilter(num_particles, mesh=mesh, store_ancestors=True)
        state = jax.jit(settings.init)(jax.random.key(0), model)
        step = jax.jit(settings.step, donate_argnums=0).lower(state, model).compile()
        memory = step.memory_analysis()
        peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        counted = collectives(step.as_text())
        run = jax.jit(settings.run, static_argnums=2)(jax.random.key(0), model, num_steps)
        resampled = np.flatnonzero(np.asarray(run.resampled))
        moved = [routes(np.asarray(run.ancestors)[t], parts) for t in resampled]
        rows_sent, rounds = (np.mean([m[i] for m in moved]) for i in range(2))
        # A branch for each distance; a round takes one of them.
        travelling = rounds * counted.get("collective-permute", 0) / max(parts - 1, 1)
        worst = {
            name: routes(a, parts)
            for name, a in {
                "first": np.zeros(num_particles, int),
                "half": num_particles // 2 + np.arange(num_particles) // 2,
            }.items()
        }
        lines.append(
            f"| {parts} | {num_particles * row_bytes / parts / 1e6:.2f} | {peak / 1e6:.2f} |"
            f" {counted.get('all-gather', 0) / 1e3:.1f} | {rows_sent:.0f} | {rounds:.1f} |"
            f" {rows_sent * row_bytes / parts / 1e6:.2f} | {travelling / 1e6:.2f} |"
            f" {worst['first'][0]}, {worst['first'][1]} | {worst['half'][0]}, {worst['half'][1]} |"
            f" {float(run.log_evidence):.4f} |"
        )
        share = len(resampled) / num_steps
    return [*lines, "", f"{share:.0%} of the steps resample; the others move the log weights only."]


def write(options: argparse.Namespace, table: str) -> None:
    """results.md."""
    sizes = SMOKE if options.smoke else FULL
    side, n = sizes["side"], sizes["num_particles"]
    lines = [
        "# Devices: memory and traffic",
        "",
        "Written by `python experiments/devices/run.py`" + (" --smoke" if options.smoke else ""),
        "",
        f"{n} particles of {side} x {side} x 3 (float32), one chain; simulated devices. Megabytes"
        " per device: its own particles, and the whole compiled step (its arguments and XLA's"
        " temporary memory). Of a step that resamples, in the mean: kilobytes of gathered weights"
        " per device; rows that had to leave their device; rounds of the exchange; megabytes per"
        " device of those rows, and of all that travels, padding included. Then rows and rounds"
        " where the first particle takes all, and where the second half does.",
        "",
        "| devices | own particles, MB | step, MB | weights, kB | rows | rounds | rows, MB |"
        " sent, MB | one takes all | half takes all | log evidence |",
        "|" + "---|" * 11,
        table,
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.md").write_text("\n".join(lines))
    print("\n".join(lines))


def main() -> None:
    """Measures in a process that has 8 devices, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--measure", action="store_true", help="only print the rows, of 8 devices")
    options = parser.parse_args()
    if options.measure:
        print("\n".join(measure(**(SMOKE if options.smoke else FULL))))
        return
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, __file__, "--measure", *(["--smoke"] if options.smoke else [])]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    write(options, done.stdout)


if __name__ == "__main__":
    main()
