"""The 256-dimensional mixture of interacting particle guidance (2026): writes results.md and .png.

    python experiments/gmm_256/run.py            # about 5 minutes on two cores
    python experiments/gmm_256/run.py --smoke    # what the tests run

What was measured is kept in results.json, method by method: a run of some of the --methods replaces
their rows and leaves the others.

10 equal components in d = 256 with means uniform in [-1.3, 1.3], centred, and one isotropic
covariance that makes the total variance 1 per coordinate on average; A is 128 x 256, normal rows
of unit norm, noise variance 0.1; 256 particles, 5 problems. Errors: the Euclidean distance of the
posterior mean to the exact one, and the sliced Wasserstein-2 distance to as many exact draws; the
floor is that of another exact set.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import SMC, exact, kernels, priors, proposals, twists
from smcdiff.diagnostics.metrics import sliced_wasserstein

HERE = Path(__file__).parent
EXACT, DDIM = kernels.Exact(), kernels.DDIM()
LANCZOS = proposals.LanczosMomentMatched(twist=twists.Lanczos(10))
KRYLOV = proposals.KrylovMomentMatched(twist=twists.Krylov(4, 0.0))
METHODS = {
    "Rejuvenated LanczosMomentMatched, exact kernel": dict(
        proposal=proposals.Rejuvenated(LANCZOS, jump=10, every=10), kernel=EXACT, ess_threshold=0.9
    ),
    "LanczosMomentMatched, exact kernel": dict(proposal=LANCZOS, kernel=EXACT),
    "LanczosMomentMatched": dict(proposal=LANCZOS, kernel=DDIM),
    "LanczosMomentMatched, unweighted": dict(proposal=LANCZOS, kernel=DDIM, weighted=False),
    "KrylovMomentMatched, exact kernel": dict(proposal=KRYLOV, kernel=EXACT),
    "KrylovMomentMatched": dict(proposal=KRYLOV, kernel=DDIM),
    "KrylovMomentMatched, unweighted": dict(proposal=KRYLOV, kernel=DDIM, weighted=False),
    "Twisted": dict(proposal=proposals.Twisted(), kernel=DDIM),
    "MCGDiff": dict(proposal=proposals.MCGDiff(), kernel=DDIM),
    "FPS, exact kernel": dict(proposal=proposals.FPS(), kernel=EXACT),
    "PiGDM, unweighted": dict(proposal=proposals.PiGDM(), kernel=DDIM, weighted=False),
    "DDRM, unweighted": dict(proposal=proposals.DDRM(), kernel=DDIM, weighted=False),
    "DAPS, unweighted": dict(proposal=proposals.DAPS(), kernel=DDIM, weighted=False),
    "DPS, unweighted": dict(proposal=proposals.DPS(), kernel=DDIM, weighted=False),
}
PUBLISHED = {"best published": (0.649, 0.088), "IPG": (0.841, 0.093), "DriftLite": (2.178, 0.168),
             "FKC": (3.685, 0.260), "floor, published": (0.542, 0.084)}  # fmt: skip


@functools.partial(jax.jit, static_argnames="size")
def draw(key, size: int):
    """Prior, matrix and observation of one problem."""
    keys = jax.random.split(key, 4)
    means = jax.random.uniform(keys[0], (10, size), minval=-1.3, maxval=1.3)
    means = means - means.mean(axis=0, keepdims=True)
    prior = priors.GaussianMixture(jnp.ones(10), means, 1.0 - jnp.mean(means**2))
    matrix = jax.random.normal(keys[1], (size // 2, size))
    matrix = matrix / jnp.linalg.norm(matrix, axis=1, keepdims=True)
    clean = prior.sample(keys[2])
    y = matrix @ clean + 0.1**0.5 * jax.random.normal(keys[3], (size // 2,))
    return prior, matrix, y


def model(prior, matrix, y=None):
    """The benchmark as a NumPyro model."""
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(matrix @ x, 0.1**0.5).to_event(1), obs=y)


def errors(key, draws, truth, reference) -> tuple[float, float]:
    """Distance of the means, and sliced Wasserstein-2 to the reference draws."""
    mean = jnp.linalg.norm(jnp.mean(draws, axis=0) - truth.mean)
    distance = sliced_wasserstein(key, draws, reference, order=2)
    return float(mean), float(distance)


def run(options, size: int, particles: int, steps: int):
    """Records (mean error, sliced W2, |dlogZ|, ESS, seconds) by method, and the floor's."""
    solvers = {
        name: SMC(model, num_particles=particles, num_steps=steps, progress_bar=False,
                  linear=True, **METHODS[name])
        for name in options.methods
    }  # fmt: skip
    file = options.output / "results.json"
    records = json.loads(file.read_text()) if file.exists() else {}
    records |= {name: [] for name in ["floor", *solvers]}
    for index in range(options.problems):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), index), 5)
        prior, matrix, y = draw(keys[0], size)
        truth = exact.linear_gaussian_posterior(prior, matrix, y, 0.1**0.5)
        reference = truth.sample(keys[1], (particles,))
        floor = errors(keys[2], truth.sample(keys[3], (particles,)), truth, reference)
        records["floor"].append((*floor, 0.0, particles, 0.0))
        for name, smc in solvers.items():
            start = time.perf_counter()
            posterior = smc.run(keys[4], prior, matrix, y=y)
            seconds = time.perf_counter() - start
            draws = posterior.resample(keys[2], particles)["x"]
            evidence = abs(float(posterior.log_evidence[0] - truth.log_evidence))
            row = (*errors(keys[2], draws, truth, reference), evidence,
                   float(posterior.ess[0, -1]), seconds)  # fmt: skip
            records[name].append(row)
            print(index, name, np.round(row, 3), flush=True)
        file.write_text(json.dumps(records, indent=1) + "\n")
    return records


def write(records, options, arguments: str) -> None:
    """The table and the picture."""
    lines = ["# Mixture in 256 dimensions", "", "Written by", ""]
    lines += [f"    python experiments/gmm_256/run.py {arguments}".rstrip(), ""]
    lines += [
        f"Means over the problems, {options.steps} steps, 256 particles; seconds with compilation"
        " are the first problem's, without it the median's.", "",
        "| method | problems | mean error | sliced W2 | \\|dlogZ\\| | ESS | s, first | s |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    averages = {}
    for name in ["floor", *(method for method in METHODS if method in records)]:
        table = np.array(records[name])
        mean, w2, evidence, ess, _ = averages[name] = table.mean(axis=0)
        shown = "" if not np.isfinite(evidence) or name == "floor" else f"{evidence:.2f}"
        lines.append(
            f"| {name} | {len(table)} | {mean:.3f} | {w2:.3f} | {shown} | {ess:.0f} |"
            f" {table[0, -1]:.0f} | {np.median(table[:, -1]):.1f} |"
        )
    lines += [f"| {name} | 5 | {m:.3f} | {w:.3f} | | | | |" for name, (m, w) in PUBLISHED.items()]
    lines += ["", "![results](results.png)", ""]
    (options.output / "results.md").write_text("\n".join(lines))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.35 * len(averages) + 1.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    panels = ("mean error", (0.5, 1, 2, 4, 8)), ("sliced W2", (0.1, 0.2, 0.4))
    for column, (axis, (label, ticks)) in enumerate(zip(axes, panels, strict=True)):
        values = [averages[name][column] for name in averages]
        axis.plot(values, range(len(values)), "o")
        axis.axvline(values[0], color="0.6", linewidth=1)
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_xticks([], minor=True)
        axis.set_xlabel(label)
    axes[0].set_yticks(range(len(averages)), list(averages))
    axes[0].invert_yaxis()
    figure.savefig(options.output / "results.png", dpi=130)


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--problems", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    size, particles = 256, 256
    if options.smoke:
        size, particles = 8, 16
        options.problems, options.steps, options.methods = 1, 4, ["MCGDiff"]
    options.output.mkdir(parents=True, exist_ok=True)
    given = "--smoke" if options.smoke else f"--problems {options.problems}"
    if set(options.methods) != set(METHODS) and not options.smoke:
        given += " --methods " + shlex.join(options.methods)
    write(run(options, size, particles, options.steps), options, given)


if __name__ == "__main__":
    main()
