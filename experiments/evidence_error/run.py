"""Is the standard error of the log evidence, told by one run, the spread over many runs?

    python experiments/evidence_error/run.py            # about five minutes on two cores
    python experiments/evidence_error/run.py --smoke    # what the tests run

400 independent chains of each problem: the root mean square of the standard errors that they tell
over the standard deviation of their log evidences, and the same of 100 sets of four chains that are
pooled. A chain tells nothing where fewer than 10 founders are left; such count as not told.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import SMC, DegeneracyWarning, kernels, priors, proposals
from smcdiff.results._weighted import log_mean_evidence, log_mean_evidence_se

HERE = Path(__file__).parent
MIXTURE = priors.GaussianMixture(
    jnp.array([0.3, 0.7]), jnp.array([[-2.0, 0.0, 1.0, 0.0], [3.0, 1.0, 0.0, -1.0]]), 0.5
)
MATRIX = jnp.array([[1.0, 0.5, -0.3, 0.2], [0.0, 1.0, 0.8, -0.5]])


def linear(y=None):
    x = numpyro.sample("x", MIXTURE)
    numpyro.sample("y", dist.Normal(MATRIX @ x, 0.3).to_event(1), obs=y)


def nonlinear(y=None):
    x = numpyro.sample("x", MIXTURE)
    numpyro.sample("y", dist.Normal(jnp.tanh(MATRIX @ x) * x[2:], 0.2).to_event(1), obs=y)


def counts(y=None):
    x = numpyro.sample("x", MIXTURE)
    numpyro.sample("y", dist.Poisson(jnp.exp(MATRIX @ x)).to_event(1), obs=y)


def unknown_noise(y=None):
    x = numpyro.sample("x", MIXTURE)
    noise = numpyro.sample("noise", dist.HalfNormal(0.5))
    numpyro.sample("y", dist.Normal(MATRIX @ x, noise).to_event(1), obs=y)


class Case(NamedTuple):
    """A problem, and how it is sampled."""

    name: str
    model: Any
    y: Any
    proposal: Any = None
    kernel: Any = None


Y = jnp.array([0.7, -0.6])
CASES = [
    Case("linear, MomentMatched", linear, Y, proposals.MomentMatched()),
    Case("linear, Twisted", linear, Y, proposals.Twisted()),
    Case("linear, Bootstrap", linear, Y, proposals.Bootstrap()),
    Case("linear, Twisted, DDPM's kernel", linear, Y, proposals.Twisted(), kernels.DDIM()),
    Case("unknown noise", unknown_noise, Y),
    Case("nonlinear", nonlinear, jnp.array([0.4, -0.5])),
    Case("counts", counts, jnp.array([4, 1])),
]


class Found(NamedTuple):
    """What the chains of one case and size say."""

    founders: float
    spread: float
    told: float
    ratio: float
    pooled_told: float
    pooled_ratio: float


def judge(log_evidence: np.ndarray, errors: np.ndarray, founders: np.ndarray) -> Found:
    """The told errors over the spreads, of single chains and of sets of four."""
    spread, told = float(np.std(log_evidence, ddof=1)), ~np.isnan(errors)
    sets = log_evidence[: len(log_evidence) // 4 * 4].reshape(-1, 4)
    pooled = np.array([log_mean_evidence(row) for row in sets])
    own = np.array([log_mean_evidence_se(row, np.full(4, np.nan)) for row in sets])
    root = np.sqrt(np.mean(errors[told] ** 2)) if told.any() else np.nan
    own_told = own[~np.isnan(own)]
    own_root = np.sqrt(np.mean(own_told**2)) if len(own_told) else np.nan
    return Found(
        float(np.median(founders)), spread, float(told.mean()), float(root / spread),
        len(own_told) / len(own), float(own_root / np.std(pooled, ddof=1)),
    )  # fmt: skip


def sample(case: Case, particles: int, steps: int, chains: int) -> Found:
    """All chains in one call."""
    smc = SMC(
        case.model, case.proposal, num_particles=particles, num_steps=steps, num_chains=chains,
        kernel=case.kernel, progress_bar=False,
    )  # fmt: skip
    posterior = smc.run(jax.random.key(0), y=case.y)
    return judge(
        posterior.log_evidence.astype(float), posterior.log_evidence_se.astype(float),
        posterior.num_founders[:, -1],
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", DegeneracyWarning)
    smoke = options.smoke
    cases, sizes, steps, chains = (
        (CASES[:1], (32,), 4, 8) if smoke else (CASES, (100, 300, 1000), 25, 400)
    )
    command = f"python experiments/evidence_error/run.py {'--smoke' if smoke else ''}".rstrip()
    lines = [
        "# The standard error of the log evidence", "",
        f"Written by `{command}` ({chains} chains of each, {steps} steps).", "",
        "Founders: the median at the end. Spread: standard deviation of the log evidence over",
        "the chains, nat. Told: share of the chains that tell a standard error. Ratio: root mean",
        "square of the told ones over the spread. Then the same of sets of four pooled chains.", "",
        "| problem | particles | founders | spread | told | ratio | told, 4 chains | ratio,"
        " 4 chains |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for case in cases:
        for particles in sizes:
            found = sample(case, particles, steps, chains)
            cells = (
                case.name, particles, f"{found.founders:.0f}", f"{found.spread:.3f}",
                f"{found.told:.2f}", f"{found.ratio:.2f}", f"{found.pooled_told:.2f}",
                f"{found.pooled_ratio:.2f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
            print(lines[-1], flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
