"""The probability-flow ODE on digits: writes results.md and results.png here.

    python experiments/flow/run.py            # minutes on two cores
    python experiments/flow/run.py --smoke    # what the tests run

Encoding and decoding, interpolation between two real digits, temperature, and the log density of
real digits, of their negatives and of noise. Images have noise of the smallest level added, for
that is where the ODE begins.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import flow, load_examples, load_prior
from smcdiff.results import plots

HERE = Path(__file__).parent


def run(smoke: bool):
    """The picture's rows, and the lines of the report."""
    prior, count = load_prior("mnist"), 2 if smoke else 8
    clean = jnp.asarray(load_examples("mnist")[0])[: 2 * count : 2]
    level = prior.schedule.sigma(prior.schedule.t_min) / prior.schedule.alpha(prior.schedule.t_min)
    noise = level * jax.random.normal(jax.random.key(1), clean.shape)
    images = clean + noise
    tolerance = 1e-2 if smoke else 1e-6
    solver = flow.ProbabilityFlow(rtol=tolerance, atol=tolerance)
    start = time.perf_counter()
    latent = jax.jit(solver.encode)(prior, images)
    back = jax.jit(solver.decode)(prior, latent)
    error = float(jnp.sqrt(jnp.mean((back - images) ** 2)))
    largest = float(jnp.max(jnp.abs(back - images)))
    lines = [
        f"- {count} real digits, with noise {level:.3f}, encoded and decoded: root mean square"
        f" error {error:.1e}, largest {largest:.1e} (data in [-1, 1]); latents: mean"
        f" {float(latent.mean()):.3f}, standard deviation {float(latent.std()):.3f};"
        f" {time.perf_counter() - start:.0f} s."
    ]
    rows = [images, back]
    fractions = jnp.linspace(0.0, 1.0, count)
    rows.append(flow.interpolate(prior, images[0], images[-1], fractions, solver))
    draw = jax.jit(
        lambda prior, key, t: flow.DPMSolver(4 if smoke else 20).decode(
            prior, t * jax.random.normal(key, (count, *prior.event_shape))
        )
    )
    rows += [draw(prior, jax.random.key(2), t) for t in (0.6, 0.8, 1.0, 1.2)]
    start = time.perf_counter()
    kinds = {
        "real digits": images[:2],
        "their negatives": noise[:2] - clean[:2],
        "noise": jax.random.normal(jax.random.key(0), (2, *prior.event_shape)),
    }
    density = jax.jit(solver.log_prob)
    for name, batch in kinds.items():
        found = density(prior, batch)
        values = ", ".join(
            f"{float(v):.0f} +- {float(e):.0f}"
            for v, e in zip(found.value, found.standard_error, strict=True)
        )
        lines.append(f"- log density of {name} (standard error of {solver.num_probes} probes), nat:"
                     f" {values}.")  # fmt: skip
    lines.append(f"- The six densities took {time.perf_counter() - start:.0f} s with compilation.")
    return np.concatenate([np.asarray(row) for row in rows]), count, lines


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    pictures, columns, lines = run(options.smoke)
    plots.save_grid(np.clip(pictures, -1.0, 1.0), options.output / "results.png", columns=columns,
                    scale=3)  # fmt: skip
    command = "python experiments/flow/run.py" + (" --smoke" if options.smoke else "")
    report = [
        "# The deterministic flow of the digits prior", "", "Written by", "", f"    {command}", "",
        *lines, "",
        "Rows: real digits; the same, encoded and decoded; the first one turned into the last by",
        "interpolation of their encodings; draws by DPM-Solver++ in 20 evaluations at temperature",
        "0.6, 0.8, 1 and 1.2, from the same noise.", "", "![rows](results.png)", "",
    ]  # fmt: skip
    (options.output / "results.md").write_text("\n".join(report))


if __name__ == "__main__":
    main()
