"""Speed of the particle filter beside `particles` and BlackJAX, in one process.

A bootstrap filter on a 1-D linear-Gaussian state-space model, systematic resampling, float32 (the
package particles computes in float64). Rows:

* smcdiff, adaptive: resampling when the ESS is below N/2; always: at every step; seldom: below
  N/20; two chains: N/2 particles each, in one filter, where steps that resample neither chain skip
  the work; two runs: of the same under ``jax.vmap``, which knows no branches;
* BlackJAX, keys: ``blackjax.smc.base.step`` in a ``lax.scan``, with the model on one particle and
  one key per particle, as in smcdiff; batch: the same with one draw for all particles, its fastest
  form.
  It resamples at every step;
* particles, adaptive: resampling when the ESS is below N/2; left out where it is not installed
  (``pip install particles``, then ``pip install -U numpy``, which it lowers below what jax needs).

The measurements are interleaved and the best of the repetitions is taken, so that a load on the
machine falls on all rows. Writes results.md and results.png beside itself.

    python experiments/filter_benchmark/run.py [--smoke]
"""

import argparse
import os
import pathlib
import sys
import time
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff.smc import particle_filter, resampling

HERE = pathlib.Path(__file__).parent
FULL = {1_000: 200, 10_000: 100, 100_000: 30, 1_000_000: 10}  # particles: steps
SMOKE = {100: 5, 1_000: 5}


class LinearGaussian(NamedTuple):
    """x_0 ~ N(0, 1), x_t = 0.9 x_{t-1} + N(0, 0.25), y_t = x_t + N(0, 0.25)."""

    y: jax.Array

    def init(self, key):
        return jax.random.normal(key)

    def step(self, key, t, prev):
        return 0.9 * prev + 0.5 * jax.random.normal(key)

    def log_potential(self, t, prev, particle):
        return log_likelihood(self.y[t], particle)


def log_likelihood(y, x):
    return -2.0 * (y - x) ** 2 - 0.2257913526447274


def smcdiff_run(n, num_steps, threshold, chains=None):
    def run(key, y):
        model = LinearGaussian(y)
        options = {"ess_threshold": threshold, "num_chains": chains}
        return particle_filter(key, model, n, num_steps, **options).log_evidence

    return compiled(run, num_steps)


def smcdiff_runs(n, num_steps, threshold, runs):
    def run(key, y):
        model = LinearGaussian(y)

        def one(key):
            return particle_filter(key, model, n, num_steps, ess_threshold=threshold)

        return jax.vmap(one)(jax.random.split(key, runs)).log_evidence

    return compiled(run, num_steps)


def blackjax_run(n, num_steps, per_particle):
    from blackjax.smc import base
    from blackjax.smc import resampling as schemes

    def move(keys, x, parameters):
        if per_particle:
            noise = jax.vmap(jax.random.normal)(keys)
        else:
            noise = jax.random.normal(keys[0], x.shape)
        return 0.9 * x + 0.5 * noise, None

    def run(key, y):
        key, first = jax.random.split(key)
        x = jax.random.normal(first, (n,))
        log_weights = jax.vmap(lambda x: log_likelihood(y[0], x))(x)
        state = base.SMCState(x, jax.nn.softmax(log_weights), jnp.zeros(()))
        evidence = jax.nn.logsumexp(log_weights) - jnp.log(n)

        def body(carry, inputs):
            state, evidence = carry
            key, value = inputs
            weigh = jax.vmap(lambda x: log_likelihood(value, x))
            state, info = base.step(key, state, move, weigh, schemes.systematic)
            return (state, evidence + info.log_likelihood_increment), None

        keys = jax.random.split(key, num_steps)
        (_, evidence), _ = jax.lax.scan(body, (state, evidence), (keys, y[1:]))
        return evidence

    return compiled(run, num_steps)


def particles_run(n, num_steps):
    import particles
    from particles import distributions, state_space_models

    class Model(state_space_models.StateSpaceModel):
        def PX0(self):
            return distributions.Normal()

        def PX(self, t, xp):
            return distributions.Normal(loc=0.9 * xp, scale=0.5)

        def PY(self, t, xp, x):
            return distributions.Normal(loc=x, scale=0.5)

    y = np.asarray(data(num_steps), float)

    def call():
        bootstrap = state_space_models.Bootstrap(ssm=Model(), data=y)
        algorithm = particles.SMC(fk=bootstrap, N=n, ESSrmin=0.5)
        algorithm.run()
        return algorithm.logLt

    call()  # numba compiles
    return call, None, None


def data(num_steps):
    return jax.random.normal(jax.random.key(1), (num_steps + 1,))


def compiled(run, num_steps):
    """The compiled call, its compilation in CPU-seconds and its temporary memory in bytes."""
    y = data(num_steps)
    start = time.process_time()
    executable = jax.jit(run).lower(jax.random.key(0), y).compile()
    seconds = time.process_time() - start
    memory = executable.memory_analysis().temp_size_in_bytes
    return lambda: np.asarray(executable(jax.random.key(0), y)).mean(), seconds, memory


ROWS = {
    "smcdiff, adaptive": lambda n, t: smcdiff_run(n, t, 0.5),
    "smcdiff, always": lambda n, t: smcdiff_run(n, t, 1.0),
    "smcdiff, two chains, adaptive": lambda n, t: smcdiff_run(n // 2, t, 0.5, 2),
    "smcdiff, two chains, seldom": lambda n, t: smcdiff_run(n // 2, t, 0.05, 2),
    "smcdiff, two runs, seldom": lambda n, t: smcdiff_runs(n // 2, t, 0.05, 2),
    "BlackJAX, keys": lambda n, t: blackjax_run(n, t, True),
    "BlackJAX, batch": lambda n, t: blackjax_run(n, t, False),
    "particles": particles_run,
}


def measure_filters(sizes, repeats):
    """{row: {n: (ns per particle-step, compile CPU-s, bytes per particle, log evidence)}}."""
    table = {name: {} for name in ROWS}
    for n, num_steps in sizes.items():
        calls = {}
        for name, build in ROWS.items():
            try:
                calls[name] = build(n, num_steps)
            except ImportError as error:
                print(f"{name}: left out ({error})", file=sys.stderr)
        best = dict.fromkeys(calls, np.inf)
        evidence = {}
        for _ in range(repeats):
            for name, (call, _, _) in calls.items():
                start = time.perf_counter()
                evidence[name] = call()
                best[name] = min(best[name], time.perf_counter() - start)
        for name, (_, seconds, memory) in calls.items():
            ns = best[name] / n / (num_steps + 1) * 1e9
            per_particle = None if memory is None else memory / n
            table[name][n] = (ns, seconds, per_particle, evidence[name])
            print(f"N = {n}: {name} {ns:.1f} ns, log Z {evidence[name]:.3f}", flush=True)
    return table


def measure_resampling(n, repeats):
    """ns per particle and the largest |copies - N w| of systematic resampling."""
    from blackjax.smc import resampling as schemes

    weights = jax.random.exponential(jax.random.key(0), (n,))
    weights = weights / weights.sum()
    exact = np.asarray(weights, float)
    exact *= n / exact.sum()
    calls = {
        name: jax.jit(lambda k, w, f=f: f(k, w, n))
        for name, f in {
            **{name: resampling.get(name) for name in ("systematic", "stratified")},
            **{name: resampling.get(name) for name in ("multinomial", "residual")},
            "BlackJAX systematic": schemes.systematic,
        }.items()
    }
    best, off = dict.fromkeys(calls, np.inf), {}
    for name, call in calls.items():
        copies = np.bincount(np.asarray(call(jax.random.key(2), weights)), minlength=n)
        off[name] = np.abs(copies - exact).max()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call(jax.random.key(2), weights))
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: (best[name] / n * 1e9, off[name]) for name in calls}


def write(table, schemes, n_resampling, load, folder):
    """results.md and results.png."""
    sizes = list(next(iter(table.values())))
    lines = [
        "# Particle filter benchmark",
        "",
        f"`python experiments/filter_benchmark/run.py`; jax {jax.__version__} on"
        f" {os.cpu_count()} CPU cores, load average {load[0]:.1f} before and {load[1]:.1f} after:"
        " absolute times are upper bounds, ratios within the run count.",
        "",
        "ns per particle and step (ratio to the fastest competitor):",
        "",
        "| filter | " + " | ".join(f"N = {n:,}" for n in sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    rivals = [row for name, row in table.items() if not name.startswith("smcdiff")]
    for name, row in table.items():
        if row:
            fastest = {n: min(r[n][0] for r in rivals if r) for n in sizes}
            cells = [f"{row[n][0]:.1f} ({row[n][0] / fastest[n]:.2f})" for n in sizes]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Compilation in CPU-seconds; temporary memory in bytes per particle:", ""]
    lines += ["| filter | " + " | ".join(f"N = {n:,}" for n in sizes) + " |"]
    lines += ["|---|" + "---|" * len(sizes)]
    for name, row in table.items():
        if row and row[sizes[0]][1] is not None:
            cells = [f"{row[n][1]:.1f} s; {row[n][2]:.0f} B" for n in sizes]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", f"Resampling alone, N = {n_resampling:,}:", ""]
    lines += ["| scheme | ns per particle | max of abs(copies - N w) |", "|---|---|---|"]
    lines += [f"| {name} | {ns:.1f} | {off:.2f} |" for name, (ns, off) in schemes.items()]
    (folder / "results.md").write_text("\n".join(lines) + "\n")
    plot(table, folder / "results.png")


def plot(table, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for name, row in table.items():
        if row:
            style = "o-" if name.startswith("smcdiff") else "s--"
            axes.loglog(list(row), [cell[0] for cell in row.values()], style, label=name)
    axes.set(xlabel="particles", ylabel="ns per particle and step")
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--output", type=pathlib.Path, default=HERE, help="folder of the results")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    table = measure_filters(SMOKE if options.smoke else FULL, 2 if options.smoke else 5)
    n = 1_000 if options.smoke else 1_000_000
    schemes = measure_resampling(n, 2 if options.smoke else 9)
    write(table, schemes, n, (before, os.getloadavg()[0]), options.output)
    print((options.output / "results.md").read_text())


if __name__ == "__main__":
    main()
