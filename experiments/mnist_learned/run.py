"""Real held-out digits through the shipped learned prior: every score that needs no exact answer.

    python experiments/mnist_learned/run.py            # hours on two cores with --digits 100
    python experiments/mnist_learned/run.py --smoke    # what the slow tests run

Writes results.md. What was measured is kept in results.json: a run of some of the --tasks,
--methods, --particles and --chains replaces their rows and leaves the others. Digits are a random
draw of MNIST's test set.

PSNR is the posterior mean's; CRPS and coverage (of 90 % intervals) are averages over pixels;
"class" is the judge's (../mnist_prior/classifier.py) mean probability of the true digit over the
draws. Digits after the first of a task and method compile nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import SMC, load_prior, proposals
from smcdiff.diagnostics.metrics import crps, psnr

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "mnist_prior"))
import classifier  # noqa: E402
from digits import NOISE, TASKS, held_out, model, tasks  # noqa: E402

METHODS = {
    "Replacement, unweighted": (proposals.Replacement(), False),
    "DPS, unweighted": (proposals.DPS(), False),
    "PiGDM, unweighted": (proposals.PiGDM(), False),
    "DDRM, unweighted": (proposals.DDRM(), False),
    "Twisted": (proposals.Twisted(), True),
    "KrylovMomentMatched": (proposals.KrylovMomentMatched(), True),
    "KrylovMomentMatched, unweighted": (proposals.KrylovMomentMatched(), False),
}
COLUMNS = ("psnr", "crps", "coverage", "class", "ess", "log_evidence", "spread", "seconds")


def scores(posterior, truth, label, judge) -> dict[str, float]:
    """The row of one digit."""
    draws = jnp.asarray(posterior.resample(jax.random.key(1), 64)["x"])
    low, high = jnp.quantile(draws, jnp.array([0.05, 0.95]), axis=0)
    evidence = posterior.log_evidence
    values = (
        psnr(jnp.asarray(posterior.mean()["x"]), truth), jnp.mean(crps(draws, truth)),
        jnp.mean((truth >= low) & (truth <= high)), jnp.mean(judge(draws)[:, label]),
        posterior.ess.min(axis=1).mean(), np.mean(evidence), np.ptp(evidence),
        posterior.attrs["seconds"],
    )  # fmt: skip
    return dict(zip(COLUMNS, map(float, values), strict=True))


def run(options) -> dict[str, list[dict[str, float]]]:
    """Rows by "task | method | particles | chains"."""
    prior, judge = load_prior("mnist"), classifier.load()
    images, labels = held_out(options.digits)
    file = options.output / "results.json"
    records = json.loads(file.read_text()) if file.exists() else {}
    for task in options.tasks:
        operator = tasks(prior.event_shape)[task]
        noise = jax.random.normal(jax.random.key(0), (len(images), *operator.out_shape))
        observed = jax.vmap(operator)(jnp.asarray(images)) + NOISE * noise
        for name in options.methods:
            proposal, weighted = METHODS[name]
            if proposal.masks_only and task not in ("half", "box"):
                continue
            smc = SMC(
                model, proposal, num_particles=options.particles, num_steps=options.steps,
                num_chains=options.chains, weighted=weighted, linear=True, progress_bar=False,
            )  # fmt: skip
            start, rows = time.perf_counter(), []
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                key = jax.random.fold_in(jax.random.key(2), index)
                posterior = smc.run(key, prior, operator, y=observed[index])
                rows.append(scores(posterior, jnp.asarray(image), int(label), judge))
            records[f"{task} | {name} | {options.particles} | {options.chains}"] = rows
            file.write_text(json.dumps(records, indent=1) + "\n")
            means = {c: round(float(np.mean([r[c] for r in rows])), 3) for c in COLUMNS}
            print(task, name, means, f"{time.perf_counter() - start:.0f} s", flush=True)
    return records


def ordered(records: dict) -> dict:
    """The records by task, method, particles and chains, whatever order they were measured in."""

    def place(name):
        task, method, particles, chains = name.split(" | ")
        return TASKS.index(task), list(METHODS).index(method), int(particles), int(chains)

    return {name: records[name] for name in sorted(records, key=place)}


def write(records, options, arguments: str) -> None:
    """The tables."""
    lines = ["# Real digits through the learned prior", ""]
    lines += ["Written row by row, for these take hours together; by last", ""]
    lines += [f"    python experiments/mnist_learned/run.py {arguments}", ""]
    lines += [
        "and before that with other --tasks, --methods, --particles and --chains; results.json",
        f"keeps them. {options.steps} steps, noise {NOISE} (data in [-1, 1]). N: particles, and",
        "chains where there are several. Means over the digits; +- is the standard error of that",
        "mean. ESS: smallest over the steps; spread: range of the log evidence over the chains,",
        "nat; seconds: median, on different machines, some beside other work: no comparison.", "",
    ]  # fmt: skip
    for task in dict.fromkeys(name.split(" | ")[0] for name in records):
        lines += [f"## {task}", "",
                  "| method | N | digits | PSNR, dB | CRPS | coverage | class | ESS | log Z |"
                  " spread | s |",
                  "|" + "---|" * 11]  # fmt: skip
        for name, rows in records.items():
            mine, method, particles, chains = name.split(" | ")
            if mine != task:
                continue
            table = {c: np.array([row[c] for row in rows]) for c in COLUMNS}
            error = {c: table[c].std() / len(rows) ** 0.5 for c in COLUMNS}
            spread = f"{table['spread'].mean():.1f}" if int(chains) > 1 else ""
            evidence = f"{table['log_evidence'].mean():.1f} | {spread}"
            evidence = evidence if METHODS[method][1] else " | "
            size = particles if int(chains) == 1 else f"{particles} x {chains}"
            lines.append(
                f"| {method} | {size} | {len(rows)}"
                f" | {table['psnr'].mean():.2f} +- {error['psnr']:.2f}"
                f" | {table['crps'].mean():.4f} +- {error['crps']:.4f}"
                f" | {table['coverage'].mean():.2f} | {table['class'].mean():.2f}"
                f" +- {error['class']:.2f} | {table['ess'].mean():.0f}"
                f" | {evidence} | {np.median(table['seconds']):.1f} |"
            )
        lines.append("")
    (options.output / "results.md").write_text("\n".join(lines))


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size")
    parser.add_argument("--digits", type=int, default=100)
    parser.add_argument("--particles", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    given = []
    for name in ("digits", "particles", "steps", "chains", "tasks", "methods"):
        value = getattr(options, name)
        if value != parser.get_default(name):
            words = value if isinstance(value, list) else [value]
            given.append(f"--{name} " + shlex.join(map(str, words)))
    if options.smoke:
        given, options.digits, options.particles, options.steps = ["--smoke"], 1, 4, 3
        options.tasks, options.methods = ["half"], ["Twisted"]
    options.output.mkdir(parents=True, exist_ok=True)
    write(ordered(run(options)), options, " ".join(given))


if __name__ == "__main__":
    main()
