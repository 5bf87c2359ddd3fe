"""Runs the Gaussian-mixture benchmark and writes results.md, results.json and results.png here.

    python experiments/gmm_linear/run.py   # the table: about an hour on two cores
    python experiments/gmm_linear/run.py --smoke  # seconds; what the tests run

Error is the sliced Wasserstein-1 distance of 1,000 draws (resampled where weighted) to 1,000 exact
posterior draws; the floor is the same distance between two exact sets. Directions and exact draws
are common to all methods of a problem, so that differences are paired.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from problem import CELLS, PUBLISHED, Instance, draw, model

from smcdiff import SMC, exact, kernels, proposals
from smcdiff.diagnostics.metrics import sliced_wasserstein

HERE = Path(__file__).parent
MM, TDS = proposals.MomentMatched(), proposals.Twisted()
EXACT, DDIM = kernels.Exact(), kernels.DDIM()
METHODS = {
    "MomentMatched, exact kernel": dict(proposal=MM, kernel=EXACT),
    "MomentMatched": dict(proposal=MM, kernel=DDIM),
    "MomentMatched, unweighted": dict(proposal=MM, kernel=DDIM, weighted=False),
    "Twisted, exact kernel": dict(proposal=TDS, kernel=EXACT),
    "Twisted": dict(proposal=TDS, kernel=DDIM),
    "Twisted, unweighted": dict(proposal=TDS, kernel=DDIM, weighted=False),
    "Bootstrap": dict(proposal=proposals.Bootstrap(), kernel=DDIM),
    # Its weights are consistent for an ideal reverse kernel only.
    "FPS, exact kernel": dict(proposal=proposals.FPS(), kernel=EXACT),
    "FPS, unweighted": dict(proposal=proposals.FPS(), kernel=DDIM, weighted=False),
}
for _name in ("KrylovMomentMatched", "MCGDiff", "PiGDM", "DPS", "DDRM", "DAPS"):
    METHODS[_name] = dict(proposal=getattr(proposals, _name)(), kernel=DDIM)
    METHODS[f"{_name}, unweighted"] = {**METHODS[_name], "weighted": False}
IMPORTANCE = "importance sampling"


@jax.jit
def chi_squared(x, instance: Instance):
    """Mean squared whitened residual per coordinate of y."""
    return jnp.mean(((instance.y[None] - x @ instance.matrix.T) / instance.noise) ** 2)


@jax.jit(static_argnames=("num_draws", "num_evaluations"))
def importance(key, instance: Instance, num_draws: int, num_evaluations: int):
    """Draws, log evidence and ESS of importance sampling from the prior, in chunks."""
    chunk = 10_000

    def body(carry, key):
        # Keeps `num_draws` weighted draws by merging and resampling chunk by chunk is biased;
        # instead keep, for each wanted draw, the running winner of a Gumbel race: exact.
        best, winner, log_sum, log_sum_squares = carry
        key_x, key_race = jax.random.split(key)
        x = instance.prior.sample(key_x, (chunk,))
        residual = (instance.y[None] - x @ instance.matrix.T) / instance.noise
        log_w = -0.5 * jnp.sum(residual**2, -1) - instance.y.shape[0] * (
            jnp.log(instance.noise) + 0.5 * jnp.log(2 * jnp.pi)
        )
        total = jax.scipy.special.logsumexp(log_w)
        index = jax.random.categorical(key_race, log_w, shape=(num_draws,))
        score = total + jax.random.gumbel(jax.random.fold_in(key_race, 1), (num_draws,))
        better = score > best
        winner = jnp.where(better[:, None], x[index], winner)
        return (
            jnp.maximum(score, best),
            winner,
            jnp.logaddexp(log_sum, total),
            jnp.logaddexp(log_sum_squares, jax.scipy.special.logsumexp(2 * log_w)),
        ), None

    size = instance.prior.event_shape[0]
    count = max(1, num_evaluations // chunk)
    start = jnp.full((num_draws,), -jnp.inf), jnp.zeros((num_draws, size)), -jnp.inf, -jnp.inf
    (_, draws, log_sum, squares), _ = jax.lax.scan(body, start, jax.random.split(key, count))
    return draws, log_sum - jnp.log(count * chunk), jnp.exp(2 * log_sum - squares)


def solve(name, smc, key, instance, num_steps, num_particles):
    """Draws, log evidence, final ESS and seconds of one method on one problem."""
    start = time.perf_counter()
    if name == IMPORTANCE:
        budget = num_steps * num_particles
        x, log_evidence, ess = jax.block_until_ready(
            importance(key, instance, num_particles, budget)
        )
        return x, float(log_evidence), float(ess), time.perf_counter() - start
    posterior = smc.run(key, instance.prior, instance.matrix, instance.noise, y=instance.y)
    seconds = time.perf_counter() - start
    x = posterior.resample(jax.random.fold_in(key, 1), num_particles)["x"]
    return x, float(posterior.log_evidence[0]), float(posterior.ess[0, -1]), seconds


def _distance(key, exact_draws, num_directions, x) -> float:
    return float(sliced_wasserstein(key, x, exact_draws, num_directions=num_directions))


def run_cell(cell, num_steps, num_problems, num_particles, num_directions, methods, baseline):
    """All methods on all problems of one cell; a list of records."""
    records = []
    solvers = {
        name: SMC(
            model, num_particles=num_particles, num_steps=num_steps, progress_bar=False,
            linear=True, **methods[name],
        )
        for name in methods
    }  # fmt: skip
    for index in range(num_problems):
        key = jax.random.fold_in(jax.random.key(CELLS.index(cell)), index)
        keys = jax.random.split(key, 5)
        instance = draw(keys[0], *cell)
        truth = exact.linear_gaussian_posterior(
            instance.prior, instance.matrix, instance.y, instance.noise
        )
        first, second = truth.sample(keys[1], (2, num_particles))
        distance = functools.partial(_distance, keys[3], first, num_directions)
        floor = distance(second)
        exact_chi = float(chi_squared(first, instance))
        for name in [*methods, *([IMPORTANCE] if baseline else [])]:
            x, log_evidence, ess, seconds = solve(
                name, solvers.get(name), keys[4], instance, num_steps, num_particles
            )
            records.append(
                dict(
                    d_x=cell[0], d_y=cell[1], steps=num_steps, problem=index, method=name,
                    error=distance(x), floor=floor, ess=ess, seconds=seconds,
                    evidence_error=log_evidence - float(truth.log_evidence),
                    chi_ratio=float(chi_squared(x, instance)) / exact_chi,
                )
            )  # fmt: skip
    return records


def summarise(records) -> list[dict]:
    """One row a cell, number of steps and method."""
    rows = []
    keys = sorted({(r["d_x"], r["d_y"], r["steps"]) for r in records})
    names = list(dict.fromkeys(r["method"] for r in records))
    baseline = {
        (*_run_of(r)[:3], r["problem"]): r["error"] for r in records if r["method"] == IMPORTANCE
    }
    for d_x, d_y, steps in keys:
        for name in names:
            chosen = [
                r for r in records
                if (r["d_x"], r["d_y"], r["steps"], r["method"]) == (d_x, d_y, steps, name)
            ]  # fmt: skip
            if not chosen:
                continue
            column = {field: np.array([r[field] for r in chosen]) for field in _FIELDS}
            against = [baseline.get((d_x, d_y, steps, r["problem"]), np.nan) for r in chosen]
            log_over = np.log(column["error"] / np.array(against))
            rows.append(
                dict(
                    d_x=d_x, d_y=d_y, steps=steps, method=name, problems=len(chosen),
                    error=column["error"].mean(), floor=column["floor"].mean(),
                    ratio=float(np.median(column["error"] / column["floor"])),
                    over=float(np.exp(np.mean(log_over))),
                    over_error=float(np.exp(np.std(log_over) / len(chosen) ** 0.5)),
                    evidence_error=np.abs(column["evidence_error"]).mean(),
                    ess=float(np.median(column["ess"])),
                    chi_ratio=float(np.median(column["chi_ratio"])),
                    seconds=float(np.median(column["seconds"])),
                )
            )  # fmt: skip
    return rows


_FIELDS = ("error", "floor", "evidence_error", "ess", "chi_ratio", "seconds")


def _entry(table, key, field) -> str:
    return f"{table[key][field]:.2f}" if key in table else ""


def overview(rows, steps: int) -> list[str]:
    """Median ratio of every method in every cell, and the evidence error of ours."""
    cells = [c for c in CELLS if any((r["d_x"], r["d_y"]) == c for r in rows)]
    table = {(r["method"], r["d_x"], r["d_y"]): r for r in rows}
    lines = [
        f"## Sliced W1 over the sampling floor, {steps} steps",
        "",
        "| d_x, d_y | " + " | ".join(f"{a}, {b}" for a, b in cells) + " |",
        "|---|" + "---|" * len(cells),
    ]
    for name in dict.fromkeys(r["method"] for r in rows):
        values = [_entry(table, (name, *cell), "ratio") for cell in cells]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    ours = [n for n in METHODS if n.startswith("Moment") and METHODS[n].get("weighted", True)]
    for name in ours:
        values = [_entry(table, (name, *cell), "evidence_error") for cell in cells]
        lines.append(f"| \\|dlogZ\\|, {name} | " + " | ".join(values) + " |")
    for name in ours if any(r["method"] == IMPORTANCE for r in rows) else []:
        values = [
            f"{_entry(table, (name, *c), 'over')} x/ {_entry(table, (name, *c), 'over_error')}"
            for c in cells
        ]
        lines.append(f"| over importance sampling, {name} | " + " | ".join(values) + " |")
    return [*lines, ""]


def write(rows, arguments, folder: Path) -> None:
    """The tables as Markdown."""
    lines = ["# Gaussian-mixture benchmark", "", "Written by", ""]
    command = f"python experiments/gmm_linear/run.py {arguments}".strip()
    lines += [f"    {command}", ""]
    if any(r["problems"] < 20 for r in rows) and not arguments:
        lines += [
            "The rows of 10 problems by the same command with --problems 10 --no-importance"
            " --methods and their names, those of 100 with --problems 100 --steps 100"
            " --observations 1 --methods 'MomentMatched, exact kernel' MomentMatched. A method"
            " without a kernel in its name runs on DDPM's.",
            "",
        ]
    lines += [
        "sliced W1: mean over problems; ratio: median of sliced W1 over the floor; |dlogZ|: mean"
        " absolute error of the log evidence, nat; ESS: median, last step; chi2: median of the"
        " samples' chi-squared over the exact posterior's; s: median seconds a problem (the first"
        " of a cell compiles); over importance sampling: geometric mean over problems of sliced W1"
        " over that of importance sampling with as many evaluations, and its standard error, a"
        " factor.",
        "",
    ]
    for steps in sorted({r["steps"] for r in rows}):
        lines += overview([r for r in rows if r["steps"] == steps], steps)
    for d_x, d_y in CELLS:
        cell = [r for r in rows if (r["d_x"], r["d_y"]) == (d_x, d_y)]
        if not cell:
            continue
        published = {name: values[CELLS.index((d_x, d_y))] for name, values in PUBLISHED.items()}
        lines += [
            f"## d_x = {d_x}, d_y = {d_y}",
            "",
            "Published sliced W1 at 20 steps: "
            + ", ".join(f"{name} {value}" for name, value in published.items())
            + f". Sampling floor here: {cell[0]['floor']:.2f}.",
            "",
            "| steps | method | problems | sliced W1 | ratio | \\|dlogZ\\| | ESS | chi2 | s |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for r in cell:
            evidence = "" if np.isnan(r["evidence_error"]) else f"{r['evidence_error']:.2f}"
            lines.append(
                f"| {r['steps']} | {r['method']} | {r['problems']} | {r['error']:.2f}"
                f" | {r['ratio']:.2f} | {evidence} | {r['ess']:.0f} | {r['chi_ratio']:.2f}"
                f" | {r['seconds']:.1f} |"
            )
        lines.append("")
    (folder / "results.md").write_text("\n".join(lines))


def plot(rows, folder: Path) -> None:
    """Ratio to the floor, a panel a number of steps."""
    from matplotlib.figure import Figure

    steps = sorted({r["steps"] for r in rows})
    names = list(dict.fromkeys(r["method"] for r in rows))
    figure = Figure(figsize=(5.5 * len(steps), 4.2), layout="constrained")
    axes = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    shapes = itertools.cycle("osD^vPX*")
    # A sampler with weights off is the open form of the same sampler.
    looks = {}
    for index, base in enumerate(dict.fromkeys(name.split(",")[0] for name in names)):
        looks[base] = (f"C{index % 10}", next(shapes))
    for axis, count in zip(axes, steps, strict=True):
        for name in names:
            colour, marker = looks[name.split(",")[0]]
            style = {"color": colour, "alpha": 0.8}
            if "unweighted" in name:
                style["markerfacecolor"] = "none"
            elif "exact kernel" in name:
                style["markeredgecolor"] = "black"
            values = {(r["d_x"], r["d_y"]): r["ratio"] for r in rows
                      if r["method"] == name and r["steps"] == count}  # fmt: skip
            cells = [cell for cell in CELLS if cell in values]
            places = [CELLS.index(cell) for cell in cells]
            axis.plot(places, [values[c] for c in cells], marker, label=name, **style)
            axis.set_xticks(range(len(CELLS)), [f"{a},{b}" for a, b in CELLS])
        axis.set_yscale("log")
        axis.axhline(1.0, color="0.6", linewidth=1)
        axis.set_title(f"{count} steps")
        axis.set_xlabel("$d_x, d_y$")
    axes[0].set_ylabel("sliced W1 / sampling floor (median)")
    axes[-1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(folder / "results.png", dpi=130)


def _run_of(record: dict) -> tuple:
    return record["d_x"], record["d_y"], record["steps"], record["method"]


def publish(records, options) -> None:
    """Writes records, table and picture; what this run has not done yet is kept."""
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "results.json"
    done = {_run_of(r) for r in records}
    if file.exists():
        records = [r for r in json.loads(file.read_text()) if _run_of(r) not in done] + records
    order = [*METHODS, IMPORTANCE]
    records = sorted(records, key=lambda r: order.index(r["method"]))
    file.write_text(json.dumps(records))
    rows = summarise(records)
    write(rows, "--smoke" if options.smoke else "", options.output)
    plot(rows, options.output)


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--steps", type=int, nargs="*", default=[20, 100])
    parser.add_argument("--dimensions", type=int, nargs="*", default=[8, 80, 800])
    parser.add_argument("--observations", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--no-importance", action="store_true", help="leave that baseline out")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    particles, directions = 1000, 500
    if options.smoke:
        options.problems, options.steps = 1, [5]
        options.dimensions, options.observations = [8], [2]
        options.methods = ["MomentMatched"]  # each method compiles for many seconds
        particles, directions = 50, 20
    methods = {name: METHODS[name] for name in options.methods}
    records = []
    for cell in CELLS:
        if cell[0] not in options.dimensions or cell[1] not in options.observations:
            continue
        for steps in options.steps:
            start = time.perf_counter()
            records += run_cell(
                cell, steps, options.problems, particles, directions, methods,
                not options.no_importance,
            )  # fmt: skip
            print(f"cell {cell}, {steps} steps: {time.perf_counter() - start:.0f} s", flush=True)
            publish(records, options)  # after each cell: a run that is cut off loses little
            jax.clear_caches()  # or the programs of 18 cells exhaust the process's memory maps


if __name__ == "__main__":
    main()
