"""Calibration of weighted samplers and of heuristics, on data that the model itself has simulated.

    python experiments/calibration/run.py            # half an hour on two cores
    python experiments/calibration/run.py --smoke    # what the slow tests run

Writes results.md, results.json (every quantity's p-value and coverage) and picture.png. Each
calibration's ranks are kept in the folder of ``--cache``, where one is given, and a run goes on
where the last one was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from problems import PROBLEMS, Method, Problem

import smcdiff
from smcdiff import SMC
from smcdiff.calibration.plots import plot_coverage, plot_ranks

HERE = Path(__file__).parent
ABOUT = """# Calibration of samplers

Written by `{command}`

Mixtures of three Gaussians in two dimensions, {simulations} simulations, {particles} particles,
{steps} steps, exact reverse kernel, {draws} draws of each posterior. p: that the ranks of x, of the
log likelihood and of TARP are all uniform (the least p-value, times their number); below 0.01 the
sampler fails. Error: mean over all probabilities of abs(coverage - probability) of TARP, which is
{chance:.3f} by chance. Intervals: what share of truths the central 90 % intervals of the two
entries hold, and those of the noise where it is unknown. Effective: particles, median, and the
share of posteriors that have fewer than draws, whose ranks then stray even where the weights are
right.

![Coverage and ranks of all samplers](picture.png)
"""
HEAD = "| sampler | p | p of the log likelihood | p of TARP | error | intervals | effective |"
SHOWN = "log likelihood"
"""The quantity of the picture's second column."""


def calibrated(problem: Problem, method: Method, options, cache: Path | None):
    """The calibration of one sampler."""
    smc = SMC(problem.model, method.proposal, num_particles=options.particles,
              num_steps=options.steps, weighted=method.weighted, progress_bar=False)  # fmt: skip
    return smcdiff.calibrate(
        problem.model, smc, num_simulations=options.simulations,
        num_draws=method.draws or options.draws, simulations_per_batch=50, output=cache,
        key=jax.random.key(0),
    )  # fmt: skip


def summary(found: smcdiff.Calibration) -> dict:
    """What results.json keeps."""
    names = [*found.ranks, *found.tarp_ranks]
    return {
        "p": found.p_value,
        "passes": found.passes(),
        "failures": len(found.failures),
        "effective": float(np.median(found.effective_draws)),
        "fewer than draws": float(np.mean(found.effective_draws < found.num_draws)),
        "quantities": {
            name: {
                "p": found.p_values[name],
                "covers 90 %": found.coverage(name).at(0.9),
                "error": found.coverage_error(name),
            }
            for name in names
        },
    }


def picture(results: dict[str, dict[str, smcdiff.Calibration]], path: Path) -> None:
    """A row per problem: TARP's coverage, and the ranks of the log likelihood."""
    figure = Figure(figsize=(9.5, 3.7 * len(results)), layout="constrained")
    rows = figure.subplots(len(results), 2, squeeze=False, width_ratios=[1, 1.35])
    for (left, right), (name, found) in zip(rows, results.items(), strict=True):
        plot_coverage(found, axis=left)
        plot_ranks(found, names=[SHOWN], axes=[right])
        left.set_title(f"{PROBLEMS[name]().title}: TARP", fontsize=9)
        right.set_title(f"{SHOWN}: distribution function of ranks, less uniform", fontsize=9)
        lines = zip(left.get_lines()[1:], right.get_lines()[1:], found, strict=True)
        for colour, (one, other, label) in enumerate(lines):
            style = "--" if "unweighted" in label else "-"
            for line in (one, other):
                line.set(linestyle=style, color=f"C{colour}", label=label)
        left.get_legend().remove()
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=130)


def write(results: dict[str, dict[str, smcdiff.Calibration]], options) -> None:
    """The tables, the numbers and the picture."""
    lines = [ABOUT.format(
        command="python experiments/calibration/run.py" + " --smoke" * options.smoke,
        chance=0.31 / options.simulations**0.5, **vars(options),
    )]  # fmt: skip
    for name, found in results.items():
        lines += [f"## {PROBLEMS[name]().title}", "",
                  HEAD, "|" + "---|" * 7]  # fmt: skip
        for label, calibration in found.items():
            row = summary(calibration)
            parts = row["quantities"]
            covers = ", ".join(
                f"{100 * part['covers 90 %']:.1f} %"
                for quantity, part in parts.items()
                if quantity in calibration.ranks and quantity != SHOWN
            )
            cells = [
                label, f"{row['p']:.2g}", f"{parts[SHOWN]['p']:.2g}",
                f"{parts['TARP']['p']:.2g}", f"{parts['TARP']['error']:.3f}", covers,
                f"{row['effective']:.0f}, {100 * row['fewer than draws']:.0f} %",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    numbers = {
        name: {label: summary(calibration) for label, calibration in found.items()}
        for name, found in results.items()
    }
    (options.output / "results.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (options.output / "results.md").write_text("\n".join(lines))
    picture(results, options.output / "picture.png")


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size")
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--draws", type=int, default=99)
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--samplers", type=int, help="only so many of each problem")
    parser.add_argument("--cache", type=Path, help="a folder that keeps the ranks")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    if options.smoke:
        options.simulations, options.particles, options.steps, options.draws = 2, 8, 2, 7
        options.problems, options.samplers = options.problems[:1], 2
    options.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, smcdiff.Calibration]] = {}
    for name in options.problems:
        problem, found = PROBLEMS[name](), results.setdefault(name, {})
        for label, method in list(problem.methods.items())[: options.samplers]:
            cache = options.cache and options.cache / name / label
            found[label] = calibrated(problem, method, options, cache)
            print(f"{name}, {label}", found[label], sep="\n", flush=True)
            jax.clear_caches()
    write(results, options)


if __name__ == "__main__":
    main()
