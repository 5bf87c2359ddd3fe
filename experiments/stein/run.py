"""The score-based kernel Stein discrepancy on the simulations of Qiu et al. 2026.

    python experiments/stein/run.py            # about 15 minutes on one core
    python experiments/stein/run.py --smoke    # what the tests run

arXiv 2602.04189v2, "Beyond accuracy: evaluating posterior fidelity of diffusion inverse solvers",
section 4 and appendices A and B: the prior, truth, operators, noises, numbers of draws and kernel
are the paper's. Its figures are in simulations.py.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import levels
import numpy as np
from simulations import NOISES, OPERATORS, PRIOR, REFERENCE, TABLES, TRUTH, D, kernel_scale, model

from smcdiff import SMC, exact, kernels, priors, proposals
from smcdiff.diagnostics.metrics import sliced_wasserstein
from smcdiff.diagnostics.stein import score_stein_discrepancy

HERE = Path(__file__).parent
DDIM = kernels.DDIM()
MOST = 500
PER_RUN = 16  # particles of each of N runs: MCG-Diff's in the paper's table 7
LOST, NARROW = "exact draws, second mode lost", "exact draws, 0.7 times as wide"


class Method(NamedTuple):
    """A sampler, and how N draws are taken of it."""

    proposal: proposals.Proposal
    how: str  # "weights off", "N runs" or "one run"
    kernel: kernels.Kernel | None = None


METHODS = {
    "DAPS": Method(proposals.DAPS(), "weights off", DDIM),
    "DDRM": Method(proposals.DDRM(), "weights off", DDIM),
    "DPS": Method(proposals.DPS(), "weights off", DDIM),
    "PiGDM": Method(proposals.PiGDM(), "weights off", DDIM),
    "Replacement": Method(proposals.Replacement(), "weights off", DDIM),
    **{
        f"{name}, {how}": Method(getattr(proposals, name)(), how, kernel)
        for name, kernel in (
            # FPS needs an exact kernel for its weights.
            ("FPS", None), ("MCGDiff", DDIM), ("Twisted", None), ("TwistedPath", None),
        )
        for how in ("N runs", "one run")
    },
    "MomentMatched, one run": Method(proposals.MomentMatched(), "one run"),
    "Bootstrap, one run": Method(proposals.Bootstrap(), "one run"),
}  # fmt: skip


class Draws(NamedTuple):
    """(N, d) draws of one problem, and their weights or None."""

    x: jax.Array
    weights: jax.Array | None = None


def solve(key, method: Method, problem, count: int, steps: int) -> Draws:
    """N draws of a sampler; independent ones are the first of 500, whatever N: one program."""
    runs, size = method.how == "N runs", count if method.how == "one run" else MOST
    smc = SMC(
        model, method.proposal, num_particles=PER_RUN if runs else size, num_steps=steps,
        num_chains=size if runs else 1, weighted=method.how != "weights off",
        kernel=method.kernel, progress_bar=False,
    )  # fmt: skip
    key_run, key_pick = jax.random.split(key)
    posterior = smc.run(key_run, *problem[:3], y=problem[3])
    x, log_weights = posterior.samples["x"], jnp.asarray(posterior.log_weights)
    if runs:  # one particle of each, which are independent draws
        picked = jax.random.categorical(key_pick, log_weights, axis=1)
        return Draws(jnp.asarray(x)[jnp.arange(size), picked][:count])
    weights = jax.nn.softmax(log_weights[0]) if method.how == "one run" else None
    return Draws(jnp.asarray(x)[0, :count], weights)


def reference_draws(key, name: str, problem, count: int) -> Draws:
    """Exact draws, and what was made of them."""
    prior, matrix, noise, y = problem
    if name == LOST:
        prior = priors.Gaussian(PRIOR.means[0], jnp.eye(D))
    posterior = exact.linear_gaussian_posterior(prior, matrix, y, noise)
    x = posterior.sample(key, (count,))
    return Draws(posterior.mean[None] + 0.7 * (x - posterior.mean[None]) if name == NARROW else x)


def judge(key, draws: Draws, problem, truth) -> dict[str, float]:
    """All columns of one method on one problem; ``truth`` are two sets of exact draws."""
    prior, matrix, noise, y = problem
    settings = dict(y=y, weights=draws.weights, scale=kernel_scale(matrix))
    keys = jax.random.split(key, 4)
    arguments = (draws.x, model, prior, matrix, noise)
    # The blur at log-SNR 9 is 1e-4 of the prior's variance; 0.3 and 4 points are the paper's.
    analytic = score_stein_discrepancy(keys[0], *arguments, log_snr=9.0, num_pairs=0, **settings)
    near = score_stein_discrepancy(
        keys[1], *arguments, log_snr=-2.0 * np.log(0.3), num_pairs=2, **settings
    )
    count = len(draws.x)
    weights = jnp.full(count, 1.0 / count) if draws.weights is None else draws.weights
    equal = draws.x
    if draws.weights is not None:
        equal = draws.x[jax.random.choice(keys[2], count, (count,), p=weights)]
    distances = [sliced_wasserstein(keys[3], x, truth[0]) for x in (equal, truth[1])]
    shares = jax.vmap(PRIOR.component_probabilities)(draws.x)[:, 1]
    squares = jnp.mean((draws.x - TRUTH[None]) ** 2, axis=1)
    return {
        "rmse": float(weights @ squares) ** 0.5,
        "analytic": analytic.score_ksd,
        "approximate": near.score_ksd,
        "standard": analytic.u_statistic / analytic.standard_error,
        "share": float(weights @ shares),
        "distance": float(distances[0] / distances[1]),
    }


def run(cell, noise: float, names, num_problems: int, steps: int) -> dict[str, dict]:
    """Method -> column -> the values on all problems."""
    operator, count = cell
    matrix = OPERATORS[operator]
    found: dict[str, list[dict[str, float]]] = {}
    for index in range(num_problems):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), index), 4)
        y = matrix @ TRUTH + noise * jax.random.normal(keys[0], (matrix.shape[0],))
        problem = (PRIOR, matrix, jnp.asarray(noise), y)
        posterior = exact.linear_gaussian_posterior(*problem[:2], y, noise)
        truth = posterior.sample(keys[1], (2, count))
        for name in (REFERENCE, LOST, NARROW, *names):
            start = time.perf_counter()
            if name in METHODS:
                draws = solve(keys[2], METHODS[name], problem, count, steps)
            else:
                draws = reference_draws(keys[2], name, problem, count)
            found.setdefault(name, []).append(judge(keys[3], draws, problem, truth))
            print(cell, noise, index, name, f"{time.perf_counter() - start:.1f} s", flush=True)
    return {
        name: {column: np.array([row[column] for row in rows]) for column in rows[0]}
        for name, rows in found.items()
    }


COLUMNS = (
    "method", "RMSE", "published", "KSD, exact score", "published", "KSD, at noise 0.3",
    "published", "U / its error", "second mode", "sliced W1 / floor",
)  # fmt: skip


def row(name: str, columns, published) -> str:
    """One line of a table; a method of the paper that is not here has its figures alone."""
    cells = [name]
    for column in ("rmse", "analytic", "approximate"):
        if columns is None:
            cells.append("")
        else:
            values = columns[column]
            spread = f" ({values.std(ddof=1):.2f})" if len(values) > 1 else ""
            cells.append(f"{values.mean():.2f}{spread}")
        cells.append("" if published is None else f"{getattr(published, column):.2f}")
    if columns is None:
        cells += ["", "", ""]
    else:
        means = {column: values.mean() for column, values in columns.items()}
        standard = f"{means['standard']:.1f}" if np.isfinite(means["standard"]) else ""
        cells += [standard, f"{means['share']:.2f}", f"{means['distance']:.2f}"]
    return "| " + " | ".join(cells) + " |"


def table(cell, noise: float, found) -> list[str]:
    """The table of one operator, number of draws and noise."""
    operator, count = cell
    published = {n: pair[NOISES.index(noise)] for n, pair in TABLES.get(cell, {}).items()}
    scale = kernel_scale(OPERATORS[operator])
    lines = [f"## {operator.capitalize()} observations, noise {noise}, N = {count}", ""]
    expected = expected_ksd(OPERATORS[operator], noise, scale, count)
    lines += [f"c = {scale:.3f}; of exact draws the formula gives {expected:.2f}.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for name in dict.fromkeys([*found, *published]):
        lines.append(row(name, found.get(name), published.get(name)))
    return [*lines, ""]


def expected_ksd(matrix, noise: float, scale: float, count: int) -> float:
    """Of N exact draws: u has mean 0 off the diagonal, |s|^2 / c + d / c^3 on it.

    E |s|^2 is the mean trace of minus the Hessian, the prior's by its own draws.
    """
    draws = PRIOR.sample(jax.random.key(1), (20_000,))
    scores = jax.vmap(jax.grad(PRIOR.log_prob))(draws)
    squares = float(jnp.mean(jnp.sum(scores**2, 1)) + jnp.sum(matrix**2) / noise**2)
    return ((squares / scale + D / scale**3) / count / D) ** 0.5


CAPTION = f"""\
The problems of Qiu et al. 2026, arXiv 2602.04189v2, appendix B: d = 16, two of whose coordinates
are a mixture of N((0, 0), I) with weight 0.8 and N((3, 3), 2 I) with 0.2. PROBLEMS draws of the
noise, with their standard deviation in brackets; STEPS steps.

**The same as published**: prior, truth, operators, noises and numbers of draws; score-KSD =
sqrt(sum_ij u(x_i, x_j) / d) / N with the inverse multiquadric kernel and its scale c. RMSE is that
of single draws about the truth. "KSD, exact score" takes the posterior's score in closed form.

The published figures of exact draws do not follow from that formula at N = 500; with many weak
observations those of N = 100 do. So compare their order, not their size, where N = 500.

**Not the same**: the draws of the noise, which the paper does not give, and the samplers' settings,
steps and particles, which it gives for its images only: here they are the package's own. Ours work
with the exact denoiser, the paper's with a trained one. "KSD, at noise 0.3" takes the prior's score
at the paper's noise, of the exact denoiser, by two pairs of points for its four. Draws of a "one
run" count by their weights in all columns (N particles of one run); "N runs" take one particle of
each of N runs of {PER_RUN} particles. DDNM, DiffPIR, PnPDM and RED-Diff are the paper's alone.

U / its error: the U-statistic over its standard error; independent draws of the posterior have
0 +- 1; empty where the weights leave fewer than five effective draws. Second mode: the posterior
probability of the component at (3, 3); that of "exact draws" is right. Sliced W1 / floor: distance
to N exact draws, over that of as many other exact draws.
"""


def write(tables, num_problems: int, steps: int, output: Path, arguments: str) -> None:
    """results.md."""
    command = f"    python experiments/stein/run.py {arguments}".rstrip()
    caption = CAPTION.replace("PROBLEMS", str(num_problems)).replace("STEPS", str(steps))
    lines = ["# The score-based kernel Stein discrepancy", "", "Written by", "", command, ""]
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.md").write_text("\n".join([*lines, caption, *tables]))


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    cells, noises, num_problems, steps = list(TABLES), NOISES, 5, 60
    if options.smoke:
        cells, noises, num_problems, steps = [("many weak", 10)], NOISES[:1], 1, 3
        options.methods = ["DPS"]
    tables = []
    for cell in cells:
        for noise in noises:
            found = run(cell, noise, options.methods, num_problems, steps)
            tables += table(cell, noise, found)
            # After each: a run that is cut off loses little.
            write(tables, num_problems, steps, options.output, "--smoke" if options.smoke else "")
    tables += levels.table(4, [5.0]) if options.smoke else levels.table(96)
    write(tables, num_problems, steps, options.output, "--smoke" if options.smoke else "")


if __name__ == "__main__":
    main()
