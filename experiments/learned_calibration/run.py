"""Calibration with the shipped learned prior: x* from the prior's own chain, and real digits.

    python experiments/learned_calibration/run.py            # a day on two cores
    python experiments/learned_calibration/run.py --smoke    # what the slow tests run

x* is drawn from the prior by the reverse chain that the sampler itself uses (its kernel, grid and
number of steps), y from x*, so that a right posterior is calibrated by construction. Writes
results.md; results.json keeps one row per problem, and a run goes on where the last one was.

Scores are averages over the pixels that are hidden and vary (in x* or in the draws, by more than a
tenth). Coverage is that of central 90 % intervals of the weighted draws. Chains are pooled by their
evidence, and also each alike, which is what a posterior of TwistedPath does. The ranks
(simulation-based calibration) are of the class, slant, ink, width and height of the digit; p is the
least of five Kolmogorov-Smirnov p-values, times five.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from smcdiff import SMC, load_prior, proposals, schedules
from smcdiff.diagnostics.metrics import crps
from smcdiff.results._weighted import quantiles

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "mnist_learned"))
from digits import NOISE, TASKS, classifier, held_out, model, tasks  # noqa: E402

TRUTHS = ["prior", "real"]
HOST = jax.devices("cpu")[0]
FOCUSED = schedules.Focused(-4.0, 4.6)


class Method(NamedTuple):
    """A sampler, its settings, and its vector-Jacobian products per network evaluation."""

    proposal: proposals.Proposal
    particles: int
    chains: int
    products: float
    steps: int = 60
    weighted: bool = True
    grid: schedules.Grid = FOCUSED


def _paths(particles: int, chains: int) -> Method:
    """`TwistedPath`; on this grid 30 of 60 levels are steered."""
    return Method(proposals.TwistedPath(), particles, chains, products=0.5)


def _unweighted(proposal: proposals.Proposal, products: float, **settings) -> Method:
    return Method(proposal, 64, 4, products, weighted=False, **settings)


METHODS = {
    "TwistedPath": _paths(4, 64),
    "TwistedPath, 8 x 32": _paths(8, 32),
    "TwistedPath, 16 x 16": _paths(16, 16),
    "TwistedPath, 32 x 8": _paths(32, 8),
    "TwistedPath, 64 x 4": _paths(64, 4),
    "TwistedPath, 4 x 256": _paths(4, 256),
    "TwistedPath, 16 x 64": _paths(16, 64),
    "TwistedPath, 64 x 16": _paths(64, 16),
    "TwistedPath, 256 x 4": _paths(256, 4),
    "TwistedPath, 256 x 16": _paths(256, 16),
    "TwistedPath, 1024 x 4": _paths(1024, 4),
    "Twisted": Method(proposals.Twisted(), 64, 4, products=1.0),
    "PiGDM, unweighted": _unweighted(proposals.PiGDM(), 1.0),
    "PiGDM, unweighted, uniform": _unweighted(
        proposals.PiGDM(), 1.0, grid=schedules.UniformLogSNR()
    ),
    "DPS, unweighted": _unweighted(proposals.DPS(), 1.0),
    "DDRM, unweighted": _unweighted(proposals.DDRM(), 0.0),
    "FPS, unweighted": _unweighted(proposals.FPS(), 0.0),
}


def functionals(images, judge: Callable) -> np.ndarray:
    """(5, n): the class, and moments of the ink."""
    ink = np.clip((np.asarray(images)[..., 0] + 1.0) / 2.0, 0.0, None) + 1e-6
    rows, columns = np.indices(ink.shape[1:])
    total = ink.sum((1, 2))

    def mean(values):
        return (ink * values).sum((1, 2)) / total

    down, along = mean(rows), mean(columns)
    height, width = mean(rows**2) - down**2, mean(columns**2) - along**2
    slant = (mean(rows * columns) - down * along) / height
    classes = np.asarray(jnp.argmax(judge(jnp.asarray(images)), axis=1), float)
    return np.stack([classes, slant, total, width, height])


def scores(posterior, truth, hidden, judge, label, key) -> dict:
    """The row of one problem; reckoned on the host, which a GPU would only wait for."""
    images = np.asarray(posterior.samples["x"])
    flat, target = images.reshape(-1, images[0, 0].size)[:, hidden], truth.ravel()[hidden]
    pooled = {
        name: np.asarray(
            dataclasses.replace(posterior, chains_alike=name == "alike").pooled_weights
        ).ravel()
        for name in ("evidence", "alike")
    }
    alike = pooled["alike"]
    deviation = np.sqrt(alike @ (flat - alike @ flat) ** 2)
    varies = (np.abs(target + 1.0) > 0.1) | (deviation > 0.1)
    key = jax.device_put(key, HOST)
    with jax.default_device(HOST):
        values = functionals(images.reshape(-1, *truth.shape), judge)
        wanted = functionals(truth[None], judge)
        ties = np.asarray(jax.random.uniform(key, (len(values),)))
        misses = {name: np.asarray(crps(flat, target, w)) for name, w in pooled.items()}
    label = wanted[0] if label is None else label
    row = {}
    for name, weights in pooled.items():
        low, high = quantiles(flat, weights, (0.05, 0.95))
        covered = (target >= low - 1e-3) & (target <= high + 1e-3)
        row["coverage_" + name] = float(covered[varies].mean())
        row["crps_" + name] = float(misses[name][varies].mean())
        below = (values < wanted) @ weights + ties * ((values == wanted) @ weights)
        row["ranks_" + name] = [float(rank) for rank in below]
        row["class_" + name] = float(weights @ (values[0] == label))
    weighted = posterior.weighted
    row["evidence_sd"] = float(np.std(posterior.log_evidence, ddof=1)) if weighted else None
    founders = posterior.num_founders[:, -1]
    row["founders"] = float(founders.sum()) if weighted else None
    return row


def observed(key, operator, image):
    """A simulated observation."""
    noise = jax.random.normal(jax.random.fold_in(key, 1), operator.out_shape)
    return operator(image) + NOISE * noise


def problems(options, prior, truth: str, method: Method) -> tuple[np.ndarray, list]:
    """The images and their labels."""
    if truth == "real":
        images, labels = held_out(options.problems)
        return images, [int(label) for label in labels]
    levels = method.grid(prior.schedule, method.steps)
    kernel, keys = prior.default_kernel(), jax.random.split(jax.random.key(1), options.problems)
    ends = jax.lax.map(lambda key: prior.reverse_path(key, kernel, levels)[-1], keys, batch_size=16)
    return np.asarray(ends.reshape(-1, *prior.event_shape)), [None] * len(keys)


def run(options) -> dict[str, list[dict]]:
    """Rows by "truth | task | method"."""
    prior = load_prior("mnist")
    with jax.default_device(HOST):
        judge = classifier.load()
    file = options.output / "results.json"
    records = json.loads(file.read_text()) if file.exists() else {}
    for task, name, truth in (
        (a, b, c) for a in options.tasks for b in options.methods for c in options.truths
    ):
        method = METHODS[name]._replace(**options.size)
        operator = tasks(prior.event_shape)[task]
        rows = records.setdefault(f"{truth} | {task} | {name}", [])
        if len(rows) >= options.problems:
            continue
        images, labels = problems(options, prior, truth, method)
        hidden = np.ones(images[0].size, bool)
        if task in ("half", "box"):
            hidden = np.asarray(operator.adjoint(jnp.ones(operator.out_shape))).ravel() == 0.0
        smc = SMC(
            model, method.proposal, num_particles=method.particles, num_steps=method.steps,
            num_chains=method.chains, weighted=method.weighted, grid=method.grid, linear=True,
            progress_bar=False,
        )  # fmt: skip
        start = time.perf_counter()
        while len(rows) < options.problems:
            group = range(len(rows), min(len(rows) + options.side_by_side, options.problems))
            keys = [jax.random.fold_in(jax.random.key(2), index) for index in group]
            y = jnp.stack(
                [observed(key, operator, images[i]) for key, i in zip(keys, group, strict=True)]
            )
            posteriors = smc.run_batch(keys[0], dict(y=y), prior, operator)
            for i, key, posterior in zip(group, keys, posteriors, strict=True):
                ties = jax.random.fold_in(key, 2)
                rows.append(scores(posterior, images[i], hidden, judge, labels[i], ties))
            file.write_text(json.dumps(records, indent=1) + "\n")
        names = "coverage_alike", "crps_alike"
        means = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in names}
        print(truth, task, name, means, f"{time.perf_counter() - start:.0f} s", flush=True)
    return records


def _mean(rows: list[dict], name: str) -> str:
    values = np.array([row[name] for row in rows])
    return f"{values.mean():.3f} +- {values.std() / len(values) ** 0.5:.3f}"


def _least_p(rows: list[dict], name: str) -> str:
    ranks = np.array([row[name] for row in rows])
    least = min(stats.kstest(column, "uniform").pvalue for column in ranks.T)
    return f"{min(1.0, 5.0 * least):.2g}"


def write(records: dict, options, arguments: str) -> None:
    """The tables."""
    lines = [
        "# Calibration with a learned prior", "",
        "Written row by row, for these take hours together; by last", "",
        f"    python experiments/learned_calibration/run.py {arguments}", "",
        f"results.json keeps the rows of all problems. Shipped digits prior, noise {NOISE},",
        "data in [-1, 1]. Where x* is a draw of the prior's own chain a right posterior covers",
        "90 %, and p is not small. Means over the problems, +- standard error, with the chains",
        "pooled alike, and in the column *by evidence* by their evidence. More: CRPS less that of",
        "TwistedPath on the problems that both have. Class: probability of the true class. sd: of",
        "the log evidence over the chains, median, nat. Founders: of all chains. Network:",
        "evaluations + vector-Jacobian products per problem, thousands.", "",
    ]  # fmt: skip
    for truth in TRUTHS:
        for task in TASKS:
            mine = {k.split(" | ")[2]: rows for k, rows in records.items()
                    if k.split(" | ")[:2] == [truth, task] and rows}  # fmt: skip
            if not mine:
                continue
            title = "x* from the prior" if truth == "prior" else "Real digits"
            lines += [f"## {title}: {task}", "",
                      "| method | N x chains x steps | problems | coverage | CRPS | more | class"
                      " | p | coverage, CRPS, class, p by evidence | sd | founders | network |",
                      "|" + "---|" * 12]  # fmt: skip
            for name in METHODS:
                if name in mine:
                    method = METHODS[name]._replace(**options.size)
                    ours = mine.get("TwistedPath", [])
                    lines.append(_line(name, method, mine[name], ours))
            lines.append("")
    (options.output / "results.md").write_text("\n".join(lines))


def _more(rows: list[dict], ours: list[dict]) -> str:
    """CRPS less that of others, on the problems that both have."""
    pairs = list(zip(rows, ours, strict=False))
    if rows is ours or not pairs:
        return ""
    more = np.array([a["crps_alike"] - b["crps_alike"] for a, b in pairs])
    return f"{more.mean():+.3f} +- {more.std() / len(more) ** 0.5:.3f}"


def _line(name: str, method: Method, rows: list[dict], ours: list[dict]) -> str:
    size = f"{method.particles} x {method.chains} x {method.steps}"
    network = method.particles * method.chains * method.steps / 1000.0
    cost = f"{network:.1f} + {network * method.products:.1f}"
    evidence, founders = "", ""
    if method.weighted:
        evidence = f"{np.median([row['evidence_sd'] for row in rows]):.1f}"
        founders = f"{np.mean([row['founders'] for row in rows]):.1f}"
    alike, by_evidence = (
        [*(_mean(rows, score + pooling) for score in ("coverage_", "crps_", "class_")),
         _least_p(rows, "ranks_" + pooling)]
        for pooling in ("alike", "evidence")
    )  # fmt: skip
    alike.insert(2, _more(rows, ours))
    others = ", ".join(by_evidence) if method.weighted else ""
    cells = [name, size, str(len(rows)), *alike, others, evidence, founders, cost]
    return "| " + " | ".join(cells) + " |"


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--side-by-side", type=int, default=1, help="problems in one program")
    parser.add_argument("--truths", nargs="*", default=TRUTHS, choices=TRUTHS)
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    options.size = {}
    given = shlex.join(sys.argv[1:] if arguments is None else arguments)
    if options.smoke:
        options.problems, options.tasks, options.methods = 1, ["half"], ["TwistedPath"]
        options.truths = ["prior"]
        options.size = dict(particles=4, chains=2, steps=4)
    options.output.mkdir(parents=True, exist_ok=True)
    write(run(options), options, given)


if __name__ == "__main__":
    main()
