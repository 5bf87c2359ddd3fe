"""Inverse problems on a mixture of factor analysers of MNIST: every sampler against exact answers.

    python experiments/mnist_exact/run.py            # hours on two cores
    python experiments/mnist_exact/run.py --smoke    # what the tests run

Writes results.md and results.png. What was measured is kept in results.json, row by row: a run of
some of the --tasks, --methods and --particles replaces their rows and leaves the others.

The prior is digits.py's, d = 784: its denoiser, posteriors and evidence are exact. The truth is a
draw of the prior, y has noise 0.1 (data in [-1, 1]). Weighted samplers use the exact reverse
kernel, so that their evidence is that of the prior; heuristics, and the replacement family, use
DDPM's, as published.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from pathlib import Path

import digits
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import SMC, SamplingError, exact, kernels, proposals, twists

HERE = Path(__file__).parent
LANCZOS = proposals.LanczosMomentMatched(twist=twists.Lanczos(45))
RIGHT = 100.0  # the end of the picture's axes; an arrow there is a sampler that diverged
DECIDED = 0.0  # the log-SNR above which the class is clear, and a Gaussian twist right
PROPOSALS = {
    "Bootstrap": proposals.Bootstrap(),
    "Replacement": proposals.Replacement(),
    "SMCDiff": proposals.SMCDiff(),
    "RePaint": proposals.RePaint(3, 2),
    "DPS": proposals.DPS(),
    "PiGDM": proposals.PiGDM(),
    "Twisted": proposals.Twisted(),
    "KrylovMomentMatched": proposals.KrylovMomentMatched(twist=twists.Krylov(12, 0.0)),
    "LanczosMomentMatched": LANCZOS,
    "MCGDiff": proposals.MCGDiff(),
    "FPS": proposals.FPS(),
    "DDRM": proposals.DDRM(),
    "DAPS": proposals.DAPS(),
    "LanczosMomentMatched, late": LANCZOS,
    "Rejuvenated Lanczos, late": proposals.Rejuvenated(LANCZOS, jump=10, above=DECIDED),
}
TASKS = ["half", "box", "blur", "super-resolution"]
MASKS = ("half", "box")
COLUMNS = ("mean", "std", "classes", "dlogZ", "ess", "coverage", "seconds")


def model(prior, matrix, y=None):
    """An image seen through a matrix, with noise."""
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(matrix @ x, digits.NOISE).to_event(1), obs=y)


class Reference:
    """One problem's exact posterior, and what as many exact draws miss it by."""

    def __init__(self, key, prior, matrix, particles: int):
        """Draws the truth and the observation."""
        keys = jax.random.split(key, 3)
        self.truth = np.asarray(prior.sample(keys[0]))
        noise = jax.random.normal(keys[1], (matrix.shape[0],))
        self.y = matrix @ self.truth + digits.NOISE * noise
        self.posterior = exact.linear_gaussian_posterior(prior, matrix, self.y, digits.NOISE)
        self.mean, self.std = (
            np.asarray(a) for a in (self.posterior.mean, np.sqrt(self.posterior.variance))
        )
        self.classes = np.exp(self.posterior.log_weights)
        self.responsibilities = jax.jit(jax.vmap(prior.component_probabilities))
        equal = np.full(particles, 1.0 / particles, np.float32)
        floors = [
            self.errors(self.posterior.sample(k, (particles,)), equal)
            for k in jax.random.split(keys[2], 8)
        ]
        self.floor = np.mean(floors, axis=0)

    def errors(self, x, weights) -> np.ndarray:
        """Distances of mean and standard deviation, and total variation of the classes."""
        weights, x = np.asarray(weights), np.asarray(x)
        mean = weights @ x
        std = np.sqrt(weights @ (x - mean[None]) ** 2)
        classes = weights @ np.asarray(self.responsibilities(x))
        return np.array([
            np.linalg.norm(mean - self.mean),
            np.linalg.norm(std - self.std),
            0.5 * np.sum(np.abs(classes - self.classes)),
        ])  # fmt: skip

    def coverage(self, x) -> float:
        """Share of pixels whose truth lies in the central 90 % of equally weighted draws."""
        low, high = np.quantile(np.asarray(x), [0.05, 0.95], axis=0)
        return float(np.mean((self.truth >= low) & (self.truth <= high)))


def _late(log_snr):
    """Resampling thresholds that wait until the class is decided."""
    return 0.5 * (log_snr > DECIDED)


def row(smc: SMC, reference: Reference, prior, matrix, key) -> dict:
    """One run, judged; errors are over those of as many exact draws."""
    start = time.perf_counter()
    try:
        posterior = smc.run(key, prior, matrix, y=reference.y)
    except SamplingError:  # every weight was zero: a result too
        return {name: float("nan") for name in COLUMNS}
    seconds = time.perf_counter() - start
    weights, x = np.exp(posterior.log_weights[0]), posterior.samples["x"][0]
    draws = posterior.resample(jax.random.key(1), len(x))["x"]
    *moments, classes = reference.errors(x, weights)
    ratios = np.array(moments) / reference.floor[:2]
    gap = abs(float(posterior.log_evidence[0] - reference.posterior.log_evidence))
    values = (
        *ratios.tolist(),
        float(classes),
        gap,
        float(posterior.ess[0, -1]),
        reference.coverage(draws),
        seconds,
    )
    return dict(zip(COLUMNS, values, strict=True))


def run(options, prior, matrices) -> dict:
    """Records, by "task | method | weights | particles": a list over the problems."""
    file = options.output / "results.json"
    records = json.loads(file.read_text()) if file.exists() else {}
    for task in options.tasks:
        for particles in options.particles:
            keys = jax.random.split(jax.random.key(0), options.problems)
            references = [Reference(k, prior, matrices[task], particles) for k in keys]
            exact_rows = [
                {
                    "mean": 1.0,
                    "std": 1.0,
                    "classes": float(r.floor[2]),
                    "coverage": r.coverage(r.posterior.sample(jax.random.key(2), (particles,))),
                }
                for r in references
            ]
            records[f"{task} | exact draws | - | {particles}"] = exact_rows
            for method in options.methods:
                proposal = PROPOSALS[method]
                if proposal.masks_only and task not in MASKS:
                    continue
                for weighted in options.weights:
                    late = method.endswith("late")
                    if late and not weighted:
                        continue  # they differ by resampling, and by moves that need weights
                    # Fixing pixels under an exact kernel: a d x d Cholesky factor a particle.
                    exact_kernel = weighted and not proposal.masks_only
                    smc = SMC(
                        model, proposal, num_particles=particles, num_steps=options.steps,
                        weighted=weighted, linear=True, progress_bar=False, batch_size=64,
                        kernel=kernels.Exact() if exact_kernel else kernels.DDIM(),
                        ess_threshold=_late if late else 0.5,
                    )  # fmt: skip
                    rows = [
                        row(smc, r, prior, matrices[task], jax.random.key(3)) for r in references
                    ]
                    name = f"{task} | {method} | {'on' if weighted else 'off'} | {particles}"
                    records[name] = rows
                    shown = {c: round(float(np.mean([r[c] for r in rows])), 3) for c in COLUMNS}
                    print(name, shown, flush=True)
                    file.write_text(json.dumps(records, indent=1) + "\n")
                    jax.clear_caches()
    return records


def ordered(records: dict) -> dict:
    """The records by task, method, weights and particles, whatever order they were measured in."""
    methods = ["exact draws", *PROPOSALS]

    def place(name):
        task, method, weights, particles = name.split(" | ")
        return TASKS.index(task), methods.index(method), weights, int(particles)

    return {name: records[name] for name in sorted(records, key=place)}


def write(records: dict, options, arguments: str) -> None:
    """The tables."""
    lines = ["# Exact answers at image size: a mixture of factor analysers of MNIST", ""]
    lines += ["Written row by row, for these take hours together; by last", ""]
    lines += [f"    python experiments/mnist_exact/run.py {arguments}", ""]
    lines += [
        "and before that with the other --tasks, --methods and --weights; results.json keeps them.",
        f"{options.steps} steps; means over the problems. Errors of posterior mean and standard",
        "deviation are over those of as many exact draws (1 is perfect); classes: total variation",
        "of the class weights; coverage: share of the pixels in their 90 % intervals; seconds:",
        "median of the problems, on different machines, some beside other work, so only orders",
        "of magnitude compare. nan: every weight was zero, or a particle no longer finite.",
        "Weights on: exact reverse kernel; off, and for the replacement family: DDPM's kernel.",
        "late: no resampling before log-SNR 0.",
        "",
    ]  # fmt: skip
    for task in dict.fromkeys(name.split(" | ")[0] for name in records):
        lines += [f"## {task}", ""]
        lines += ["| method | weights | N | problems | mean | std | classes | \\|dlogZ\\| | ESS |"
                  " coverage | s |", "|" + "---|" * 11]  # fmt: skip
        for name, rows in records.items():
            mine, method, weights, particles = name.split(" | ")
            if mine != task:
                continue
            cells = []
            for column, digits_ in zip(COLUMNS, (2, 2, 2, 2, 0, 2, 1), strict=True):
                values = [r[column] for r in rows if column in r]
                if not values or (column in ("dlogZ", "ess") and weights == "off"):
                    cells.append("")
                    continue
                average = np.median(values) if column == "seconds" else np.mean(values)
                cells.append(f"{average:.{digits_}f}")
            lines.append(
                f"| {method} | {weights} | {particles} | {len(rows)} | " + " | ".join(cells) + " |"
            )
        lines.append("")
    lines += ["![results](results.png)", ""]
    (options.output / "results.md").write_text("\n".join(lines))


def picture(records: dict, file: Path) -> None:
    """Error of the mean over the floor against that of the standard deviation, a panel a task."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name.split(" | ")[0] for name in records))
    figure = Figure(figsize=(4.2 * len(names), 4.9), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    methods = [m for m in PROPOSALS if any(f" | {m} | " in name for name in records)]
    for axis, task in zip(panels, names, strict=True):
        for index, method in enumerate(methods):
            for weights, offset, face in (("off", 0.18, "white"), ("on", -0.18, "C0")):
                for particles, marker in ((64, "o"), (512, "s")):
                    rows = records.get(f"{task} | {method} | {weights} | {particles}")
                    if rows is not None:
                        value = np.mean([r["mean"] for r in rows])
                        shape = marker if value < RIGHT else ">"
                        axis.plot(min(value, RIGHT), index + offset, shape, color="C0", mfc=face)
        axis.axvline(1.0, color="0.6", linewidth=1)
        axis.axvspan(1.0, 2.0, color="0.92")
        axis.set_xscale("log")
        axis.set_title(task)
        axis.set_xlabel("error of the posterior mean / exact draws'")
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    for marker, face, label in (
        ("o", "white", "weights off, 64"), ("o", "C0", "weights on, 64"),
        ("s", "white", "weights off, 512"), ("s", "C0", "weights on, 512"),
    ):  # fmt: skip
        panels[-1].plot([], [], marker, color="C0", mfc=face, label=label)
    figure.legend(loc="outside lower center", ncols=4)
    figure.savefig(file, dpi=130)


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--problems", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--particles", type=int, nargs="*", default=[64, 512])
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS)
    parser.add_argument("--methods", nargs="*", default=list(PROPOSALS), choices=list(PROPOSALS))
    parser.add_argument("--weights", nargs="*", default=["off", "on"], choices=["off", "on"])
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    given = [f"--problems {options.problems} --steps {options.steps}"]
    for name, value in (("particles", options.particles), ("tasks", options.tasks),
                        ("methods", options.methods), ("weights", options.weights)):  # fmt: skip
        if value != parser.get_default(name):
            given.append(f"--{name} " + shlex.join(map(str, value)))
    options.weights = [weights == "on" for weights in options.weights]
    if options.smoke:
        given = ["--smoke"]
        options.problems, options.steps, options.particles = 1, 4, [16]
        options.tasks, options.methods = ["half"], ["MCGDiff"]
        prior, size = digits.fit(*digits.synthetic(), factors=4), 12
    else:
        prior, size = digits.mnist_prior(), 28
    options.output.mkdir(parents=True, exist_ok=True)
    records = ordered(run(options, prior, digits.tasks(size)))
    write(records, options, " ".join(given))
    picture(records, options.output / "results.png")


if __name__ == "__main__":
    main()
