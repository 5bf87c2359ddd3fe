"""How far is the Euler-Maruyama sampler from its target, and how good is the bound?

    python experiments/convergence/run.py            # about a minute
    python experiments/convergence/run.py --smoke    # what the tests run

The target is a mixture of two normals on the line, run through the Ornstein-Uhlenbeck process. The
law of the sampler is carried from step to step on a grid, as a matrix product, so the total
variation distance has no Monte-Carlo error. The reverse process stops at t_min and is held to p_t
there. The bound is Girsanov's and Pinsker's (Chen et al. 2023, theorem 2, before constants are
taken out):

    TV <= sqrt(KL / 2),  KL <= KL(p_T | N(0, 1)) + 1/4 sum over steps of int E |drift error|^2 dt,

the drift error being that of a frozen drift with a score that is off by a constant eps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import kernels, priors, schedules
from smcdiff.diffusion.schedules import Level

HERE = Path(__file__).parent
T_MIN = 0.01
GRID = np.linspace(-7.0, 7.0, 1401)
WIDTH = GRID[1] - GRID[0]


def target(horizon: float) -> priors.GaussianMixture:
    """The mixture, with an Ornstein-Uhlenbeck process that ends at the horizon."""
    schedule = schedules.OrnsteinUhlenbeck(t_min=T_MIN, t_max=horizon)
    return priors.GaussianMixture(
        jnp.array([0.3, 0.7]), jnp.array([[-2.0], [1.5]]), 0.25, schedule=schedule
    )


def density(prior, t) -> np.ndarray:
    """p_t on the grid."""
    law = prior.marginal(prior.schedule.level(t))
    return np.exp(np.asarray(jax.vmap(law.log_prob)(jnp.asarray(GRID)[:, None]), float))


def normal(mean, variance) -> np.ndarray:
    """Normal density on the grid."""
    return np.exp(-0.5 * (GRID - mean) ** 2 / variance) / np.sqrt(2.0 * np.pi * variance)


def run_sampler(prior, steps: int, error: float) -> float:
    """Total variation between the sampler's law at t_min and p_t there."""
    horizon = float(prior.schedule.t_max)
    times = np.linspace(horizon, T_MIN, steps + 1)
    law, x = normal(0.0, 1.0), jnp.asarray(GRID)[:, None]

    @jax.jit
    def mean_and_variance(t: Level, s: Level):
        def one(x):
            denoised = prior.denoise(x, t.time) + error * t.sigma**2 / t.alpha
            transition = kernels.EulerMaruyama()(prior, x, denoised, t, s)
            return transition.mean[0], transition.mean_variance

        return jax.vmap(one)(x)

    for t, s in zip(times[:-1], times[1:], strict=True):
        both = (prior.schedule.level(v) for v in (t, s))
        means, variances = (np.asarray(a, float) for a in mean_and_variance(*both))
        # Row i: the law of the next state from grid point i.
        rows = np.exp(-0.5 * (GRID - means[:, None]) ** 2 / variances[:, None])
        rows /= rows.sum(axis=1, keepdims=True)
        law = law @ rows
    return float(0.5 * np.sum(np.abs(law - density(prior, T_MIN))) * WIDTH)


def bound(prior, steps: int, error: float, draws: int) -> float:
    """The bound; its expectation over paths by Monte Carlo, with ``draws`` draws."""
    horizon = float(prior.schedule.t_max)
    ends, reference = density(prior, horizon), normal(0.0, 1.0)
    start = np.sum(np.where(ends > 0, ends * np.log(np.maximum(ends, 1e-300) / reference), 0.0))
    step = (horizon - T_MIN) / steps

    @jax.jit
    def drift_error(key, t, fraction):
        """E |b(x_r, r) - b_hat(x_t, t)|^2 for r = t - fraction step, x_t and x_r on one path."""
        key_x, key_z = jax.random.split(key)
        r = t - fraction * step
        law = prior.marginal(prior.schedule.level(r))
        x = jax.vmap(law.sample)(jax.random.split(key_x, draws))
        shrink = jnp.exp(-(t - r))
        noisier = shrink * x + jnp.sqrt(1.0 - shrink**2) * jax.random.normal(key_z, x.shape)

        def drift(x, t):
            return x + 2.0 * jax.vmap(prior.score, (0, None))(x, t)

        return jnp.mean((drift(x, r) - drift(noisier, t) - 2.0 * error) ** 2)

    total = 0.0
    for index in range(steps):
        t = jnp.asarray(horizon - index * step)
        for fraction in (0.125, 0.375, 0.625, 0.875):  # midpoints of quarters of the step
            key = jax.random.fold_in(jax.random.key(index), int(8 * fraction))
            total += 0.25 * step * float(drift_error(key, t, jnp.asarray(fraction)))
    return float(np.sqrt(0.5 * (start * WIDTH + 0.25 * total)))


def sweep(smoke: bool) -> dict[str, list[tuple[float, float, float]]]:
    """(what varies, total variation, bound) by what varies."""
    draws = 500 if smoke else 20_000
    steps = (5, 10) if smoke else (10, 20, 40, 80, 160, 320)
    horizons = (2.0,) if smoke else (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    errors = (0.1,) if smoke else (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
    fine = 10 if smoke else 320

    def both(horizon, steps, error):
        prior = target(horizon)
        return run_sampler(prior, steps, error), bound(prior, steps, error, draws)

    return {
        "step size": [((4.0 - T_MIN) / n, *both(4.0, n, 0.0)) for n in steps],
        "horizon T": [(h, *both(h, max(2, int(fine * h / 4.0)), 0.0)) for h in horizons],
        "score error eps": [(e, *both(4.0, fine, e)) for e in errors],
    }


def write(table, output: Path, arguments: str) -> None:
    """The table and the picture."""
    lines = ["# Convergence on a known target", "", "Written by", ""]
    lines += [f"    python experiments/convergence/run.py {arguments}".rstrip(), ""]
    lines += [
        "Total variation between the Euler-Maruyama sampler and its target, without Monte-Carlo",
        "error, and Girsanov's bound (run.py says which). Where a quantity does not vary:",
        "horizon 4, 320 steps, no score error.", "",
        "| varies | value | total variation | bound |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, rows in table.items():
        lines += [f"| {name} | {value:.4g} | {tv:.4f} | {b:.4f} |" for value, tv, b in rows]
    lines += ["", "![results](results.png)", ""]
    (output / "results.md").write_text("\n".join(lines))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.3), layout="constrained")
    for axis, (name, rows) in zip(figure.subplots(1, 3, sharey=True), table.items(), strict=True):
        columns = np.array(rows)
        axis.plot(columns[:, 0], columns[:, 1], "o-", label="total variation")
        axis.plot(columns[:, 0], columns[:, 2], "s--", label="bound")
        axis.set_yscale("log")
        axis.set_xscale("linear" if name.startswith(("h", "score")) else "log")
        if name == "step size":
            axis.set_xticks([], minor=True)
            axis.set_xticks(columns[:, 0], [f"{value:.2g}" for value in columns[:, 0]])
        axis.set_xlabel(name)
    figure.axes[0].legend()
    figure.savefig(output / "results.png", dpi=130)


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    write(sweep(options.smoke), options.output, "--smoke" if options.smoke else "")


if __name__ == "__main__":
    main()
