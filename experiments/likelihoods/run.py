"""Kinds of likelihood against importance sampling from the prior, with the default proposal.

    python experiments/likelihoods/run.py            # about 15 minutes of processor time
    python experiments/likelihoods/run.py --smoke    # what the tests run
    python experiments/likelihoods/run.py --kinds 1-bit --sizes 8    # these rows again

Each kind (likelihood_kinds.py) in 2 and 8 dimensions, under a mixture of two correlated Gaussians;
8 chains of 1,000 particles, 100 steps. Where the log evidence of single chains is off by more than
0.1 nat in the mean, other settings follow. Importance sampling takes a million draws, or 4 or 16
million until its error is below 0.02 nat.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from importance import Truth, importance_sampling
from likelihood_kinds import KINDS, Problem, make

from smcdiff import SMC, proposals

HERE = Path(__file__).parent
CLOSE = 0.1


def _later(log_snr):
    return 0.5 * (log_snr > 0)


DEFAULT = {"num_particles": 1000, "num_steps": 100}
REMEDIES = {
    "resampling later": {**DEFAULT, "ess_threshold": _later},
    "20 steps": {**DEFAULT, "num_steps": 20},
    "4,000 particles": {**DEFAULT, "num_particles": 4000},
    "Bootstrap": {**DEFAULT, "proposal": proposals.Bootstrap()},
}
HEADER = (
    "kind, d", "settings", "log Z_hat - log Z (sd)", "pooled", "error of Z", "error of mean",
    "sd ratio", "second mode", "truth",
)  # fmt: skip


class Found(NamedTuple):
    """What a run found, beside the truth.

    Attributes:
        proposal: its name.
        off: mean of the log evidence of single chains minus the truth.
        spread: its standard deviation.
        pooled: the log of the mean evidence minus the truth.
        mean: the largest error of the posterior mean, in posterior standard deviations.
        mean_error: its standard error.
        ratios: smallest and largest ratio of the standard deviations to the true ones.
        second_mode: the posterior probability of the second component.
        second_mode_error: its standard error.
    """

    proposal: str
    off: float
    spread: float
    pooled: float
    mean: float
    mean_error: float
    ratios: tuple[float, float]
    second_mode: float
    second_mode_error: float


def solve(problem: Problem, truth: Truth, settings: dict, chains: int) -> Found:
    """A run against the truth."""
    smc = SMC(problem.model, num_chains=chains, progress_bar=False, **settings)
    posterior = smc.run(jax.random.key(0), data=problem.data)
    x = np.asarray(posterior.samples["x"], np.float64)
    log_weights = np.asarray(posterior.log_weights, np.float64)
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    log_evidence = np.asarray(posterior.log_evidence, np.float64) - truth.log_evidence
    share = np.exp(log_evidence - log_evidence.max())
    share /= share.sum()

    def pooled(values):
        """The mean over chains by evidence, and its standard error."""
        by_chain = np.einsum("cn,cn...->c...", weights, values)
        mean = share @ by_chain
        return mean, np.sqrt(share**2 @ (by_chain - mean) ** 2)

    mean, error = pooled(x)
    std = np.sqrt(pooled((x - mean) ** 2)[0])
    second = pooled(problem.prior.second_mode(x)[..., None])
    worst = np.argmax(np.abs(mean - truth.mean) / truth.std)
    ratios = std / truth.std
    return Found(
        posterior.attrs["proposal"].partition("(")[0],
        log_evidence.mean(), log_evidence.std(ddof=1),
        np.logaddexp.reduce(log_evidence) - math.log(chains),
        abs(mean - truth.mean)[worst] / truth.std[worst], error[worst] / truth.std[worst],
        (ratios.min(), ratios.max()), second[0].item(), second[1].item(),
    )  # fmt: skip


def row(label: str, settings: str, truth: Truth, found: Found) -> str:
    """A line of the table."""
    mark = " *" if abs(found.off) > CLOSE else ""
    cells = (
        label, settings, f"{found.off:+.3f} ({found.spread:.3f}){mark}", f"{found.pooled:+.3f}",
        f"{truth.error:.3f}", f"{found.mean:.3f} ({found.mean_error:.3f})",
        f"{found.ratios[0]:.2f} to {found.ratios[1]:.2f}",
        f"{found.second_mode:.3f} ({found.second_mode_error:.3f})", f"{truth.second_mode:.3f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def write(table: dict[str, dict], output: Path, arguments: str) -> None:
    """The table, from results.json, which keeps the rows of earlier calls."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(table, indent=1) + "\n")
    command = f"python experiments/likelihoods/run.py {arguments}".rstrip()
    lines = ["# Kinds of likelihood", "", f"Written by `{command}`", ""]
    lines += [
        "Evidence in nat: the mean over single chains (and their standard deviation), * where it is"
        f" more than {CLOSE} off, and that of all chains pooled; *error of Z* is the standard error"
        " of importance sampling. *Error of mean* is the largest over the coordinates, in posterior"
        " standard deviations (with the standard error of that coordinate), *sd ratio* the smallest"
        " and the largest. *Second mode* is the posterior probability of the prior's second"
        " component, beside importance sampling's.",
        "",
        f"With the default settings {sum(case['close'] for case in table.values())} of {len(table)}"
        f" are within {CLOSE} nat.",
        "",
    ]
    labels = [f"{name}, {size}" for name in KINDS for size in (2, 8)]
    rows = [row for label in labels if label in table for row in table[label]["rows"]]
    lines += [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|", *rows]
    (output / "results.md").write_text("\n".join([*lines, ""]))


def brute_force(problem: Problem, num_draws: int) -> Truth:
    """The truth, with four or 16 times the draws where the error is above 0.02 nat."""
    for factor in (1, 4):
        truth = importance_sampling(problem, factor * num_draws)
        if truth.error < 0.02:
            return truth
    return importance_sampling(problem, 16 * num_draws)


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--sizes", nargs="*", type=int, choices=[2, 8], default=[2, 8])
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    default, remedies, chains, draws = DEFAULT, REMEDIES, 8, 1_000_000
    if options.smoke:
        options.kinds, options.sizes = options.kinds[:1], [2]
        default, remedies = {"num_particles": 16, "num_steps": 4}, {}
        chains, draws = 2, 1000
    kept = options.output / "results.json"
    table = json.loads(kept.read_text()) if kept.exists() else {}
    for size in options.sizes:
        for name in options.kinds:
            problem = make(name, size)
            truth = brute_force(problem, draws)
            found = solve(problem, truth, default, chains)
            label = f"{name}, {size}"
            new = [row(label, found.proposal, truth, found)]
            close = abs(found.off) <= CLOSE
            for remedy, settings in () if close else remedies.items():
                tried = solve(problem, truth, settings, chains)
                new.append(row(label, f"... {remedy}", truth, tried))
            print(*new, sep="\n", flush=True)
            table[label] = {"close": bool(close), "rows": new}
            write(table, options.output, "--smoke" if options.smoke else "")
            jax.clear_caches()  # a hundred programs per case fill the process's memory maps


if __name__ == "__main__":
    main()
