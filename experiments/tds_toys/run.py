"""The two-dimensional toys of TDS (Wu et al. 2023, section 5.1): error against particles.

    python experiments/tds_toys/run.py            # about 10 minutes on two cores
    python experiments/tds_toys/run.py --smoke    # what the tests run

What was measured is kept in results.json: a run of some of the --likelihoods and --methods replaces
their rows and leaves the others.

Two priors (a Gaussian, a mixture of three) and three likelihoods at y = 0: of the norm, N(y; |x|,
0.5^2); inpainting of the first coordinate; inpainting of either coordinate, who knows which (a
mixture of the two). The paper's inpainting is noise-free; here the noise is 0.1, as weights need a
density. Of the mixture, y lies five standard deviations out in the tail of the nearest mode: until
the modes are decided, at a log-SNR of about 2, a Gaussian twist favours the wrong ones. "late" does
not resample before that. Error: root mean square of the posterior mean over 64 chains, against
quadrature; the slope of its logarithm against that of the number of particles should be -1/2.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import SMC, priors, proposals, twists

HERE = Path(__file__).parent
PRIORS = {
    "Gaussian": priors.Gaussian(jnp.array([0.5, -0.5]), jnp.array([[1.0, 0.4], [0.4, 0.6]])),
    "mixture": priors.GaussianMixture(
        jnp.array([0.3, 0.5, 0.2]), jnp.array([[1.54, -0.29], [-2.18, 0.57], [-1.09, -1.40]]), 0.04
    ),
}


def norm(prior, y):
    """The norm is observed: smooth, but not linear."""
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(jnp.sqrt(jnp.sum(x**2) + 1e-12), 0.5), obs=y)


def inpainting(prior, y):
    """The first coordinate is observed."""
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[0], 0.1), obs=y)


def either(prior, y):
    """One of the coordinates is observed, with equal probabilities."""
    x = numpyro.sample("x", prior)
    terms = dist.Normal(x, 0.1).log_prob(y) + jnp.log(0.5)
    numpyro.factor("y", jax.nn.logsumexp(terms))


def late(log_snr):
    """Resampling thresholds that wait until the modes are decided."""
    return 0.5 * (log_snr > 2.0)


LIKELIHOODS = {"norm": norm, "inpainting": inpainting, "either": either}
# A twist p(y | m(x_t)) of the original, and the samplers that fit the structure.
METHODS = {
    "Twisted": {"proposal": proposals.Twisted()},
    "Twisted, unweighted": {"proposal": proposals.Twisted(), "weighted": False},
    "Bootstrap": {"proposal": proposals.Bootstrap()},
    "Bootstrap, tempered": {"proposal": proposals.Bootstrap(twist=twists.Likelihood(0.5))},
    "MomentMatched": {"proposal": proposals.MomentMatched()},
    "MomentMatched, late": {"proposal": proposals.MomentMatched(), "ess_threshold": late},
    "SMCDiff": {"proposal": proposals.SMCDiff()},
    "MCGDiff": {"proposal": proposals.MCGDiff()},
}
LINEAR_ONLY = ("MomentMatched", "MomentMatched, late", "SMCDiff", "MCGDiff")


def exact_mean(prior, likelihood, y: float) -> np.ndarray:
    """The posterior mean by quadrature on a grid."""
    axis = jnp.linspace(-6.0, 6.0, 1201)
    points = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)

    def log_joint(x):
        seeded = numpyro.handlers.substitute(likelihood, {"x": x})
        trace = numpyro.handlers.trace(seeded).get_trace(prior, y)
        site = trace["y"]
        return prior.log_prob(x) + jnp.sum(site["fn"].log_prob(site["value"]))

    log_weights = jax.lax.map(log_joint, points, batch_size=20_000)
    return np.asarray(jax.nn.softmax(log_weights) @ points)


def run(options, sizes, chains, steps):
    """RMSE of the posterior mean for each prior, likelihood, method and number of particles."""
    file = options.output / "results.json"
    rows = [tuple(row) for row in json.loads(file.read_text())] if file.exists() else []
    places = [list(PRIORS), list(LIKELIHOODS), list(METHODS)]
    for prior_name, prior in PRIORS.items():
        for likelihood_name in options.likelihoods:
            likelihood = LIKELIHOODS[likelihood_name]
            truth = exact_mean(prior, likelihood, 0.0)
            for name in options.methods:
                if name in LINEAR_ONLY and likelihood_name != "inpainting":
                    continue
                errors = []
                for size in sizes:
                    smc = SMC(likelihood, num_particles=size, num_steps=steps, num_chains=chains,
                              progress_bar=False, **METHODS[name])  # fmt: skip
                    posterior = smc.run(jax.random.key(1), prior, 0.0)
                    weights = np.exp(posterior.log_weights)
                    means = np.einsum("cn,cnd->cd", weights, posterior.samples["x"])
                    errors.append(float(np.sqrt(np.mean(np.sum((means - truth) ** 2, axis=1)))))
                slope = float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
                mine = (prior_name, likelihood_name, name)
                rows = [row for row in rows if row[:3] != mine] + [(*mine, errors, slope)]
                print(*rows[-1], flush=True)
    rows.sort(key=lambda row: [names.index(n) for names, n in zip(places, row[:3], strict=True)])
    file.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def write(rows, sizes, chains, steps, output: Path, arguments: str) -> None:
    """The table and the picture."""
    lines = ["# Toys of twisted diffusion sampling", "", "Written by", ""]
    lines += [f"    python experiments/tds_toys/run.py {arguments}".rstrip(), ""]
    lines += [
        f"Root mean square error of the posterior mean over {chains} chains, {steps} steps, exact"
        " reverse kernels.", "",
        "| prior | likelihood | method | " + " | ".join(f"N = {n}" for n in sizes) + " | slope |",
        "|---|---|---|" + "---|" * (len(sizes) + 1),
    ]  # fmt: skip
    for prior, likelihood, name, errors, slope in rows:
        values = " | ".join(f"{error:.4f}" for error in errors)
        lines.append(f"| {prior} | {likelihood} | {name} | {values} | {slope:.2f} |")
    lines += ["", "![results](results.png)", ""]
    (output / "results.md").write_text("\n".join(lines))
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(row[:2] for row in rows))
    figure = Figure(figsize=(3.4 * max(1, len(panels) // 2) + 1.6, 6), layout="constrained")
    axes = figure.subplots(2, -(-len(panels) // 2), squeeze=False, sharex=True).ravel()
    colours = {name: f"C{index}" for index, name in enumerate(METHODS)}
    for axis, panel in zip(axes, panels, strict=False):
        for row in rows:
            if row[:2] == panel:
                axis.loglog(sizes, row[3], "o-", label=row[2], color=colours[row[2]])
        start = max(row[3][0] for row in rows if row[:2] == panel)
        axis.loglog(sizes, start * np.sqrt(sizes[0] / np.array(sizes)), "k:", label="$N^{-1/2}$")
        axis.set_title(f"{panel[0]}, {panel[1]}", fontsize=10)
        axis.set_xlabel("particles")
    axes[0].set_ylabel("error of the mean")
    most = max(axes, key=lambda axis: len(axis.lines))
    handles = most.get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(output / "results.png", dpi=130)


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--likelihoods", nargs="*", default=list(LIKELIHOODS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    sizes, chains, steps = [16, 64, 256, 1024], 64, 50
    if options.smoke:
        sizes, chains, steps = [4, 8], 2, 4
        options.likelihoods, options.methods = ["inpainting"], ["Twisted"]
    options.output.mkdir(parents=True, exist_ok=True)
    rows = run(options, sizes, chains, steps)
    write(rows, sizes, chains, steps, options.output, "--smoke" if options.smoke else "")


if __name__ == "__main__":
    main()
