"""The evidence of random nonlinear problems in 1 to 8 dimensions, with the default settings.

    python experiments/nonlinear/run.py            # about 20 minutes on two cores
    python experiments/nonlinear/run.py --smoke    # what the tests run

Functions that fold, saturate, step and are flat, under five kinds of noise (cases.py); 4,000
particles, 20 steps. Z is the mean likelihood of 2 million draws of the prior, whose error is part
of the standard error; problems for which it is above 2 % are passed over, as their Z is not known.
A case is right where the mean of Z_hat / Z over 16 chains is within 3 standard errors of 1.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cases
import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from smcdiff import SMC, proposals

HERE = Path(__file__).parent
METHODS = {
    "default": None,
    "Twisted without a floor": proposals.Twisted(floor=0.0),
    "Bootstrap": proposals.Bootstrap(),
}


def log_evidence(case: cases.Case, num_draws: int) -> tuple[float, float]:
    """Log Z and its standard error."""

    @jax.jit
    def values(key):
        x = case.prior.sample(key, (num_draws // 8,))
        return jax.vmap(lambda x: case.law(x).log_prob(case.y))(x)

    keys = jax.random.split(jax.random.key(1), 8)
    found = np.concatenate([np.asarray(values(key), np.float64) for key in keys])
    weights = np.exp(found - found.max())
    error = weights.std() / weights.mean() / math.sqrt(len(found))
    return float(found.max() + np.log(weights.mean())), float(error)


def ratio(case: cases.Case, proposal, truth: tuple[float, float], particles: int, chains: int):
    """Mean of Z_hat / Z, and its standard error."""

    def model(y):
        numpyro.sample("y", case.law(numpyro.sample("x", case.prior)), obs=y)

    smc = SMC(model, proposal, num_particles=particles, num_steps=20, num_chains=chains,
              progress_bar=False)  # fmt: skip
    ratios = np.exp(smc.run(jax.random.key(0), y=jnp.asarray(case.y)).log_evidence - truth[0])
    error = ratios.std(ddof=1) / math.sqrt(chains)
    return float(ratios.mean()), float(math.hypot(error, truth[1] * ratios.mean()))


def write(rows, names, output: Path, arguments: str) -> None:
    """The table."""
    command = f"python experiments/nonlinear/run.py {arguments}".rstrip()
    lines = ["# Nonlinear likelihoods", "", f"Written by `{command}`", ""]
    lines += ["Mean of Z_hat / Z and its standard error; * is more than 3 of them from 1.", ""]
    lines += [f"| problem | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    wrong = np.zeros(len(names), int)
    for name, found in rows:
        marks = [abs(mean - 1.0) > 3 * error + 1e-3 for mean, error in found]
        wrong += marks
        cells = [
            f"{mean:.3f} ({error:.3f}){' *' if mark else ''}"
            for (mean, error), mark in zip(found, marks, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(f"| wrong, of {len(rows)} | {' | '.join(map(str, wrong))} |")
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.md").write_text("\n".join([*lines, ""]))


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    particles, chains, draws = 4000, 16, 2_000_000
    if options.smoke:
        particles, chains, draws = 8, 2, 800
        options.cases, options.methods = 1, ["default"]
    rows, seed = [], -1
    while len(rows) < options.cases:
        seed += 1
        case = cases.make(seed)
        truth = log_evidence(case, draws)
        if truth[1] > 0.02 and not options.smoke:
            continue
        found = [ratio(case, METHODS[n], truth, particles, chains) for n in options.methods]
        rows.append((case.name, found))
        print(*rows[-1], flush=True)
        write(rows, options.methods, options.output, "--smoke" if options.smoke else "")
        jax.clear_caches()  # a hundred programs per case fill the process's memory maps


if __name__ == "__main__":
    main()
