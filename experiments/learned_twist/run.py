"""Learned twists where the likelihood has no gradient, against filters that look at its value.

    python experiments/learned_twist/run.py            # about 20 minutes on two cores
    python experiments/learned_twist/run.py --smoke    # what the tests run

A twist is trained for each model of black_boxes.py (`smcdiff.training.train_twist`, 2,000 steps of
128 pairs), and then used for observations that it has not seen. All samplers have 256 particles and
20 steps; Z is the mean likelihood of 2 million draws of the prior.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import black_boxes
import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import SMC, load_twist, proposals, twists
from smcdiff.training import TrainConfig, train_twist

HERE = Path(__file__).parent
BATCH = 2000


def log_evidence(case: black_boxes.Case, y: np.ndarray, num_draws: int) -> float:
    """Log Z."""

    @jax.jit
    def values(key):
        x = case.prior.sample(key, (BATCH,))
        return jax.vmap(lambda x: case.law(x).log_prob(jnp.asarray(y)))(x)

    keys = jax.random.split(jax.random.key(1), max(1, num_draws // BATCH))
    found = np.concatenate([np.asarray(values(key), np.float64) for key in keys])
    return float(found.max() + np.log(np.exp(found - found.max()).mean()))


def samplers(case: black_boxes.Case, twist: twists.Learned) -> dict[str, proposals.Proposal]:
    """The rows of a case."""
    rows = {
        "`Bootstrap()`": proposals.Bootstrap(),
        "`Bootstrap(twist=Likelihood(0.5))`": proposals.Bootstrap(twist=twists.Likelihood(0.5)),
        "`Bootstrap(twist=Learned)`": proposals.Bootstrap(twist=twist),
        "`Twisted(twist=Learned)`": proposals.Twisted(twist=twist),
    }
    return rows | ({"`Twisted()`": proposals.Twisted()} if case.differentiable else {})


def measure(case, proposal, truths, particles: int, chains: int) -> list[float]:
    """Mean Z_hat / Z, its standard error, spread of log Z, last ESS and seconds, over all y."""
    smc = SMC(case.model, proposal, num_particles=particles, num_steps=20, num_chains=chains,
              progress_bar=False)  # fmt: skip
    ratios, spreads, sizes, seconds = [], [], [], []
    for y, truth in zip(case.observations, truths, strict=True):
        start = time.perf_counter()
        posterior = smc.run(jax.random.key(0), y=jnp.asarray(y))
        seconds.append(time.perf_counter() - start)
        ratios.append(np.exp(np.asarray(posterior.log_evidence, np.float64) - truth))
        spreads.append(posterior.log_evidence.std(ddof=1))
        sizes.append(np.asarray(posterior.ess)[:, -1].mean())
    ratio = np.concatenate(ratios)
    error = ratio.std(ddof=1) / math.sqrt(len(ratio))
    return [ratio.mean(), error, np.mean(spreads), np.mean(sizes), min(seconds)]


def write(rows: list[tuple], trained: list[str], output: Path, arguments: str) -> None:
    """The table."""
    command = f"python experiments/learned_twist/run.py {arguments}".rstrip()
    lines = ["# Learned twists", "", f"Written by `{command}`", ""]
    lines += [
        "Means over observations: Z_hat / Z and its standard error; the standard deviation of log Z"
        " between chains; the ESS of the last step; the seconds of a run that is compiled.",
        "",
        "| problem | sampler | Z_hat / Z | sd of log Z | ESS | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for problem, name, (mean, error, spread, size, seconds) in rows:
        lines.append(
            f"| {problem} | {name} | {mean:.3f} ({error:.3f}) | {spread:.2f} | {size:.0f} |"
            f" {seconds:.1f} |"
        )
    lines += ["", *trained, ""]
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.md").write_text("\n".join(lines))


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    particles, chains, draws, count = 256, 32, 2_000_000, 8
    config = TrainConfig(steps=2000, batch_size=128, learning_rate=3e-3, channels=(64,), layers=2)
    if options.smoke:
        particles, chains, draws, count = 8, 2, BATCH, 2
        config = TrainConfig(steps=2, batch_size=8, channels=(16,))
    rows, trained = [], []
    for case in black_boxes.cases(count)[: 1 if options.smoke else None]:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            path = train_twist(case.model, Path(folder) / "twist", config, progress_bar=False)
            seconds = time.perf_counter() - start
            twist = load_twist(path)
        trained.append(f'Training for "{case.name}": {seconds:.0f} seconds.')
        truths = [log_evidence(case, y, draws) for y in case.observations]
        compared = samplers(case, twist)
        for name in list(compared)[-1:] if options.smoke else compared:
            rows.append((case.name, name, measure(case, compared[name], truths, particles, chains)))
            print(*rows[-1], flush=True)
            write(rows, trained, options.output, "--smoke" if options.smoke else "")


if __name__ == "__main__":
    main()
