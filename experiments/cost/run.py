"""Cost of a run over the bare network, compilation and import: writes results.md here.

    python experiments/cost/run.py            # about five minutes on two idle cores
    python experiments/cost/run.py --smoke    # what the tests run

In one process, a run is set against a loop that evaluates only the denoiser (for Bootstrap), or the
denoiser and one vector-Jacobian product (for Twisted), as often and at the same batch shape; and
against that loop with one standard normal per particle and step, which no sampler can do without.
Times are medians over repetitions of the compiled calls, taken in turn; a run is `SMC.run` whole:
reading the model, filtering, and the posterior on the host.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import SMC, kernels, load_prior, priors, proposals, schedules

HERE = Path(__file__).parent


def model(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(jnp.ravel(x)[: y.shape[0]], 0.3).to_event(1), obs=y)


def mixture(size: int, full: bool = False) -> priors.GaussianMixture:
    """25 components in ``size`` dimensions, isotropic or of full covariances."""
    means = 3.0 * jax.random.normal(jax.random.key(0), (25, size))
    if not full:
        return priors.GaussianMixture(jnp.ones(25), means, 1.0)
    square = jax.random.normal(jax.random.key(1), (25, size, size)) / size**0.5
    covariances = square @ jnp.swapaxes(square, 1, 2) + 0.1 * jnp.eye(size)
    return priors.GaussianMixture(jnp.ones(25), means, covariances)


def bare_loop(prior, times, particles: int, pullback: bool, draws: bool):
    """Only the network, and normals where wanted, at every level but the last: a jitted call."""

    def one(x, t):
        if not pullback:
            return prior.denoise(x, t)
        denoised, vjp = jax.vjp(lambda x: prior.denoise(x, t), x)
        return vjp(denoised)[0]

    def step(x, inputs):
        t, key = inputs
        noise = jax.random.normal(key, x.shape) if draws else 0.0
        return x + 1e-3 * (jax.vmap(one, (0, None))(x, t) + noise), None

    @jax.jit
    def loop(x):
        keys = jax.random.split(jax.random.key(0), len(times) - 1)
        return jax.lax.scan(step, x, (times[:-1], keys))[0]

    start = jnp.zeros((particles, *prior.event_shape))
    return lambda: loop(start).block_until_ready()


def median_seconds(functions, repetitions: int) -> list[float]:
    """Median wall time of each, taken in turn so that drifts fall on all alike."""
    seconds = [[] for _ in functions]
    for _ in range(repetitions):
        for function, record in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            record.append(time.perf_counter() - start)
    return [float(np.median(record)) for record in seconds]


def measure(name, prior, proposal, kernel, particles, steps, repetitions) -> str:
    """One row of the table."""
    y = jnp.zeros(min(64, int(np.prod(prior.event_shape)) // 2))
    smc = SMC(
        model, proposal, kernel=kernel, num_particles=particles, num_steps=steps, progress_bar=False
    )

    def run():
        smc.run(jax.random.key(1), prior, y=y)

    times = schedules.UniformLogSNR()(prior.schedule, steps).time
    pullback = isinstance(proposal, proposals.Twisted)
    bare, drawing = (bare_loop(prior, times, particles, pullback, draws) for draws in (False, True))
    bare()
    drawing()
    cpu = time.process_time()
    run()
    cpu = time.process_time() - cpu
    before = time.process_time()
    run()
    cpu -= time.process_time() - before
    ours, theirs, floor = median_seconds([run, bare, drawing], repetitions)
    title = {kernels.DDIM: "DDPM", kernels.Exact: "exact"}[type(kernel)]
    return (
        f"| {name} | {type(proposal).__name__} | {title} | {particles} x {steps} | {ours:.3f} |"
        f" {theirs:.3f} | {ours / theirs:.2f} | {ours / floor:.2f} | {cpu:.1f} |"
    )


def import_seconds(statement: str, repetitions: int) -> float:
    """Median wall time of a new interpreter that runs a statement."""
    call = [sys.executable, "-c", statement]
    return median_seconds([lambda: subprocess.run(call, check=True)], repetitions)[0]


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    smoke = options.smoke
    jax.config.update("jax_enable_compilation_cache", False)
    repetitions, steps = (1, 4) if smoke else (5, 20)
    ddpm, exact = kernels.DDIM(), kernels.Exact()
    cases = [("mixture, d = 80", mixture(80), [ddpm, exact], 10 if smoke else 4000)]
    if not smoke:
        full = mixture(80, full=True)
        cases = [
            ("mnist", load_prior("mnist"), [ddpm], 64),
            ("mixture, d = 80, full covariances", full, [ddpm, exact], 4000),
            *cases,
        ]
    rows = [
        measure(name, prior, proposal, kernel, particles, steps, repetitions)
        for name, prior, choices, particles in cases
        for kernel in choices
        for proposal in (proposals.Bootstrap(), proposals.Twisted())
    ]
    imports = [
        import_seconds(statement, 1 if smoke else 7)
        for statement in ("import jax, numpyro", "import smcdiff")
    ]
    lines = [
        "# Cost over the bare network",
        "",
        "Written by `python experiments/cost/run.py`" + (" --smoke" if smoke else ""),
        "",
        "Ratio: run over the bare network; over draws: run over the bare network and its normals.",
        "",
        "| prior | proposal | kernel | particles x steps | run, s | bare, s | ratio | over draws"
        " | compilation, CPU s |",
        "|" + "---|" * 9,
        *rows,
        "",
        f"`import smcdiff` takes {imports[1]:.2f} s, `import jax, numpyro` {imports[0]:.2f} s:"
        f" ratio {imports[1] / imports[0]:.2f}.",
        "",
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
