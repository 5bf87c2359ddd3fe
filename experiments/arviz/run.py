"""Leave-one-out by ArviZ and by weighted particles against the truth; the pictures of the page.

    python experiments/arviz/run.py            # about two minutes on two cores
    python experiments/arviz/run.py --smoke    # what the tests run

A Gaussian prior of 12 correlated entries, each observed with the noise 0.7: the exact leave-one-out
densities are known. Root mean square error of their sum over runs, 4 chains of each.
"""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.stats

from smcdiff import SMC, DegeneracyWarning, priors, proposals
from smcdiff.diagnostics.leave_one_out import leave_one_out

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "arviz.md"
SIZE, NOISE = 12, 0.7
COVARIANCE = np.exp(-np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE))) / 4.0)
MARGINAL = COVARIANCE + NOISE**2 * np.eye(SIZE)
PRIOR = priors.Gaussian(jnp.zeros(SIZE), jnp.asarray(COVARIANCE, jnp.float32))
SAMPLERS = [
    ("Bootstrap", proposals.Bootstrap(), 100),
    ("Bootstrap", proposals.Bootstrap(), 1000),
    ("MomentMatched", proposals.MomentMatched(), 100),
    ("MomentMatched", proposals.MomentMatched(), 1000),
]


def model(y=None):
    x = numpyro.sample("x", PRIOR)
    with numpyro.plate("place", SIZE):
        numpyro.sample("y", dist.Normal(x, NOISE), obs=y)


def exact(y: np.ndarray) -> float:
    """The sum of log p(y_i given the others)."""
    precision = np.linalg.inv(MARGINAL)
    variance = 1.0 / np.diag(precision)
    return scipy.stats.norm(y - variance * (precision @ y), np.sqrt(variance)).logpdf(y).sum()


def compare(name, proposal, particles: int, steps: int, runs: int) -> str:
    """A row: the errors of both, their k-hats and the effective particles."""
    import arviz

    y = np.random.default_rng(1).multivariate_normal(np.zeros(SIZE), MARGINAL).astype(np.float32)
    smc = SMC(model, proposal, num_particles=particles, num_steps=steps, num_chains=4,
              progress_bar=False)  # fmt: skip
    found = []
    for key in range(runs):
        posterior = smc.run(jax.random.key(key), y=jnp.asarray(y))
        theirs, ours = arviz.loo(posterior.to_arviz(), pointwise=True), leave_one_out(posterior)
        elpd = float(theirs.elpd if hasattr(theirs, "elpd") else theirs.elpd_loo)
        effective = 1.0 / np.sum(posterior.pooled_weights**2)
        shapes = float(np.max(theirs.pareto_k)), float(np.max(ours.pareto_k))
        found.append((elpd - exact(y), ours.elpd - exact(y), *shapes, effective))
    found = np.array(found)
    errors, rest = np.sqrt(np.mean(found[:, :2] ** 2, axis=0)), np.median(found[:, 2:], axis=0)
    numbers = (*(f"{error:.2f}" for error in errors), *(f"{k:.2f}" for k in rest[:2]))
    return f"| {name} | 4 x {particles} | {rest[2]:.0f} | {' | '.join(numbers)} |"


def pictures(output: Path) -> None:
    """Two pictures of the page's own program."""
    import arviz

    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names: dict = {}
    exec(compile("\n".join(blocks[:2]), "arviz.md", "exec"), names)
    data = names["data"]
    forest = arviz.plot_forest(data, var_names=["x"], combined=True)
    ppc = (
        arviz.plot_ppc(data, num_pp_samples=50, random_seed=0) if hasattr(arviz, "plot_ppc")
        else arviz.plot_ppc_dist(data, num_samples=50)
    )  # fmt: skip
    for name, plot in (("forest", forest), ("ppc", ppc)):
        file = output / f"{name}.png"
        if hasattr(plot, "savefig"):  # ArviZ 1.x
            plot.savefig(str(file))
        else:
            np.ravel(plot)[0].figure.savefig(file, dpi=80, bbox_inches="tight")


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    import matplotlib

    matplotlib.use("agg")
    warnings.simplefilter("ignore", DegeneracyWarning)
    warnings.filterwarnings("ignore", "Estimated shape parameter")
    samplers, steps, runs = (SAMPLERS[:1], 4, 2) if options.smoke else (SAMPLERS, 20, 50)
    rows = [compare(*sampler, steps, runs) for sampler in samplers]
    command = f"python experiments/arviz/run.py {'--smoke' if options.smoke else ''}".rstrip()
    lines = [
        "# Leave-one-out from weighted particles", "",
        f"Written by `{command}` ({runs} runs of each).", "",
        "RMSE: root mean square error of the elpd, nat, against the closed form. k-hat: the",
        "largest of the 12 entries; medians over the runs, as of the effective particles.", "",
        "| proposal | particles | effective | RMSE `arviz.loo` | RMSE `leave_one_out` |"
        " k-hat `arviz.loo` | k-hat `leave_one_out` |",
        "|---|---|---|---|---|---|---|", *rows, "",
        "![forest](forest.png)", "", "![replications](ppc.png)", "",
    ]  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    pictures(options.output)
    (options.output / "results.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
