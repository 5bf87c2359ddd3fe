"""Joint posteriors of x and unknown parameters against a grid.

    python experiments/unknown_parameters/run.py            # about 20 minutes on two cores
    python experiments/unknown_parameters/run.py --smoke    # what the tests run

x has 6 entries; the default sampler with 8 chains of 1,000 particles and 50 steps. Of one data set:
errors of the means over their standard error, ratios of standard deviations, and the mean of
Z_hat / Z over the chains. Of 100 data sets drawn from the model: how many 90 % intervals hold the
truth (one chain of 500 particles each). And what a noise level costs beside the digits prior.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import problems
from numpyro.infer import Predictive

from smcdiff import SMC, load_examples, load_prior, proposals

HERE = Path(__file__).parent


def simulate(model, count: int, seed: int) -> dict[str, np.ndarray]:
    """Unknowns and data."""
    return {n: np.asarray(v) for n, v in Predictive(model, num_samples=count)(
        jax.random.key(seed)).items()}  # fmt: skip


def by_name(samples: dict) -> dict[str, np.ndarray]:
    """The parameters and the first entry of x."""
    rest = {name: np.asarray(values) for name, values in samples.items() if name not in ("x", "y")}
    return {"x[0]": np.asarray(samples["x"])[..., 0], **rest}


def agreement(problem, prior: str, sizes: tuple[int, int, int]) -> dict:
    """Of one data set."""
    particles, steps, chains = sizes
    model = problem.model(prior)
    y = simulate(model, 1, 5)["y"][0]
    log_evidence, means, spreads = problem.exact(prior, np.asarray(y, float))
    smc = SMC(model, num_particles=particles, num_steps=steps, num_chains=chains,
              progress_bar=False)  # fmt: skip
    posterior = smc.run(jax.random.key(0), y=jnp.asarray(y))
    ratios, weights = np.exp(posterior.log_evidence - log_evidence), np.exp(posterior.log_weights)
    found = {"Z": (ratios.mean(), ratios.std(ddof=1) / len(ratios) ** 0.5)}
    for name, values in by_name(posterior.samples).items():
        own = np.sum(weights * values, axis=1)
        error = own.std(ddof=1) / len(own) ** 0.5
        spread = np.sqrt(np.mean(np.sum(weights * (values - means[name]) ** 2, axis=1)))
        found[name] = ((own.mean() - means[name]) / error, spread / spreads[name])
    return found


def coverage(problem, prior: str, count: int, particles: int, steps: int) -> dict[str, float]:
    """Share of truths in central 90 % intervals."""
    model = problem.model(prior)
    drawn = simulate(model, count, 7)
    smc = SMC(model, num_particles=particles, num_steps=steps, progress_bar=False)
    posteriors = smc.run_batch(jax.random.key(1), {"y": drawn["y"]})
    truths, held = by_name(drawn), {}
    for name, values in truths.items():
        inside = []
        for truth, posterior in zip(values, posteriors, strict=True):
            draws = by_name(posterior.resample(jax.random.key(2), 1000))[name]
            low, high = np.quantile(draws, [0.05, 0.95])
            inside.append(low <= truth <= high)
        held[name] = float(np.mean(inside))
    return held


def cost(particles: int, steps: int) -> float:
    """Time of a run with an unknown noise level over one without, on half a digit."""
    prior, images = load_prior("mnist"), load_examples("mnist")[0]
    y = jnp.asarray(images[0]).reshape(prior.event_shape)[:14]

    def model(unknown, y=None):
        x = numpyro.sample("x", prior)
        noise = numpyro.sample("noise", dist.HalfNormal(0.3)) if unknown else 0.1
        numpyro.sample("y", dist.Normal(x[:14], noise).to_event(), obs=y)

    smc = SMC(model, proposals.Twisted(), num_particles=particles, num_steps=steps,
              progress_bar=False)  # fmt: skip
    times = {0: [], 1: []}
    for key in range(4):
        for unknown in (0, 1):
            start = time.process_time()
            smc.run(jax.random.key(key), unknown, y=y)
            times[unknown].append(time.process_time() - start)
    return float(np.median(times[1][1:]) / np.median(times[0][1:]))


def write(rows: list, ratio: float, output: Path, arguments: str) -> None:
    """The table."""
    command = f"python experiments/unknown_parameters/run.py {arguments}".rstrip()
    lines = ["# Unknown parameters", "", f"Written by `{command}`", ""]
    lines += ["z: the mean's error over its standard error. sd: over the exact one. Held: share of"]
    lines += ["truths in 90 % intervals. Z: mean of Z_hat / Z over the chains.", ""]
    lines += ["| problem | prior | Z | unknown | z | sd | held |", "|---|---|---|---|---|---|---|"]
    for problem, prior, found, held in rows:
        z = "{:.3f} +- {:.3f}".format(*found.pop("Z"))
        for name, (error, spread) in found.items():
            cells = (problem, prior, z, name, f"{error:+.1f}", f"{spread:.3f}", f"{held[name]:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"An unknown noise level costs {ratio:.2f} times the processor time of the same"]
    lines += ["model with a known one: digits prior, half a digit, Twisted, 64 particles."]
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.md").write_text("\n".join([*lines, ""]))


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    full = not options.smoke
    rows = []
    for name, problem in list(problems.PROBLEMS.items())[: None if full else 1]:
        for prior in list(problems.PRIORS)[: None if full else 1]:
            found = agreement(problem, prior, (1000, 50, 8) if full else (16, 4, 2))
            held = coverage(problem, prior, *((100, 500, 30) if full else (2, 16, 4)))
            print(name, prior, found, held, flush=True)
            rows.append((name, prior, found, held))
            jax.clear_caches()
    ratio = cost(*((64, 20) if full else (2, 2)))
    print("cost", ratio)
    write(rows, ratio, options.output, "--smoke" if options.smoke else "")


if __name__ == "__main__":
    main()
