"""Images of 256 x 256 x 3 entries through operators whose decomposition is known.

A blur, block means, a mask and Fourier coefficients; the prior is N(0, I), whose denoiser costs
nothing, so that what is timed is the samplers' own algebra. The exact posterior mean is known in
singular coordinates, and the table has each sampler's distance from it, weights off: the root mean
square over the image of the error of the mean of all draws, over the posterior's standard deviation
(that of N independent exact draws is about N^-1/2, here 0.5). A dense matrix of these operators
would have 39 billion entries. Writes results.md beside itself.

    python experiments/large_images/run.py [--smoke]
"""

import argparse
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import SMC, kernels, operators, priors, proposals

HERE = Path(__file__).parent
NOISE, PARTICLES = 0.2, 4
SAMPLERS = {
    "DDRM": proposals.DDRM(),
    "MCGDiff": proposals.MCGDiff(),
    "PiGDM": proposals.PiGDM(),
    "KrylovMomentMatched": proposals.KrylovMomentMatched(),
    "LanczosMomentMatched": proposals.LanczosMomentMatched(),
}


def problems(event):
    """The operators, by name."""
    height, width, _ = event
    kept = np.random.default_rng(0).random((height, width)) < 0.25
    return {
        "blur": operators.GaussianBlur(event, width=2.0),
        "block means": operators.BlockDownsample(event, 4),
        "mask": operators.Mask.random(jax.random.key(1), event, 0.3),
        "Fourier": operators.MaskedFourier.of(kept, event),
    }


def model(prior, operator, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(operator(x), NOISE).to_event(), obs=y)


def exact(operator, y):
    """Mean and standard deviation, averaged over the image, of the posterior under N(0, I)."""
    svd = operator.svd()
    gain = svd.values / (svd.values**2 + NOISE**2)
    mean = svd.right.adjoint(gain * svd.left.adjoint(y))
    shrunk = 1.0 - svd.values * gain  # variances in the directions of V
    variance = 1.0 - jnp.sum(1.0 - shrunk) / mean.size
    return mean, jnp.sqrt(variance)


def measure(name, operator, event, steps):
    """Rows of one operator."""
    prior = priors.Gaussian(jnp.zeros(event), 1.0)
    x = prior.sample(jax.random.key(2))
    y = operator(x) + NOISE * jax.random.normal(jax.random.key(3), operator.out_shape)
    mean, std = exact(operator, y)
    rows = []
    for sampler, proposal in SAMPLERS.items():
        smc = SMC(
            model, proposal, num_particles=PARTICLES, num_steps=steps, weighted=False,
            kernel=kernels.DDIM(), progress_bar=False,
        )  # fmt: skip
        smc.run(jax.random.key(5), prior, operator, y=y)
        start = time.perf_counter()
        posterior = smc.run(jax.random.key(6), prior, operator, y=y)
        seconds = time.perf_counter() - start
        error = np.sqrt(np.mean((posterior.mean()["x"] - mean) ** 2)) / std
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append(
            f"| {name} | {sampler} | {1e3 * seconds / steps / PARTICLES:.1f} | {error:.2f} |"
            f" {memory:.1f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    event, steps = ((16, 16, 3), 4) if options.smoke else ((256, 256, 3), 20)
    rows = [
        row for n, operator in problems(event).items() for row in measure(n, operator, event, steps)
    ]
    command = "python experiments/large_images/run.py" + (" --smoke" if options.smoke else "")
    text = [
        f"# Operators that are kept, at {' x '.join(map(str, event))}", "", "Written by", "",
        f"    {command}", "",
        f"{PARTICLES} particles, {steps} steps, prior N(0, I), noise {NOISE}, weights off,"
        f" {jax.devices()[0].device_kind}. Milliseconds per particle and step, of a whole run that"
        " is compiled already; error of the mean of the draws over the posterior's standard"
        " deviation; the largest memory of the process so far.", "",
        "| operator | sampler | ms per particle and step | error of the mean | memory, GiB |",
        "|---|---|---|---|---|",
        *rows, "",
    ]  # fmt: skip
    (options.output / "results.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
