"""The picture at the top of the README: writes picture.png and results.md here.

    python experiments/readme_picture/run.py

A test digit with one half hidden, filled twice with the same prior and as many network evaluations:
by replacement with its weights off, and by the weighted filter. The ESS of the first is that of the
very same draws with weights on and no resampling.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure

from smcdiff import SMC, load_examples, load_prior, operators, proposals
from smcdiff.results.plots import show_image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "mnist_prior"))
import classifier  # noqa: E402

PARTICLES, STEPS, NOISE, SHOWN = 128, 100, 0.1, 7


def model(prior, mask, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(mask(x), NOISE).to_event(1), obs=y)


def solve(proposal, key, prior, mask, y, **options):
    """The posterior, its draws and seconds."""
    smc = SMC(model, proposal, num_particles=PARTICLES, num_steps=STEPS, **options)
    start = time.perf_counter()
    posterior = smc.run(key, prior, mask, y=y)
    draws = np.asarray(posterior.resample(jax.random.key(1), PARTICLES)["x"])
    return posterior, draws, time.perf_counter() - start


def seam(draws: np.ndarray) -> float:
    """Mean jump between the last seen and the first filled column, in the data's units."""
    return float(np.abs(draws[:, :, 14] - draws[:, :, 13]).mean())


def draw_row(axes, name, draws, seen, probabilities, truth, ess):
    """One method: the observation, its draws, and the class probabilities."""
    show_image(axes[0], seen, name)
    for axis, image in zip(axes[1 : 1 + SHOWN], draws, strict=False):
        show_image(axis, image)
    colours = ["#c44e52" if digit == truth else "#8c8c8c" for digit in range(10)]
    axes[-1].bar(range(10), probabilities, color=colours)
    axes[-1].set_ylim(0, 1)
    axes[-1].set_xticks(range(10))
    axes[-1].tick_params(labelsize=7)
    axes[-1].set_title(
        f"class probabilities (truth: {truth})\nESS {ess:.1f} of {PARTICLES}", fontsize=8
    )


def main(arguments: list[str] | None = None) -> None:
    """Solves twice and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--example", type=int, default=13, help="which bundled digit")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    prior, (images, labels) = load_prior("mnist"), load_examples("mnist")
    image, truth = images[options.example], int(labels[options.example])
    observed = np.ones(prior.event_shape, bool)
    observed[:, 14:] = False
    mask = operators.Mask.of(observed)
    keys = jax.random.split(jax.random.key(0), 2)
    y = np.asarray(mask(image) + NOISE * jax.random.normal(keys[0], mask.out_shape))
    seen = np.full(prior.event_shape, np.nan)
    seen[observed] = y
    off = solve(proposals.Replacement(), keys[1], prior, mask, y, weighted=False)
    on = solve(proposals.Replacement(), keys[1], prior, mask, y, ess_threshold=0.0)
    ours = solve(proposals.Twisted(), keys[1], prior, mask, y)
    rows = {
        "Replacement,\nweights off": (off[1], on[0].ess[0, -1], off[2]),
        "smcdiff: Twisted,\nweights on": (ours[1], ours[0].ess[0].min(), ours[2]),
    }
    judge = classifier.load()
    figure = Figure(figsize=(11.5, 3.4), layout="constrained")
    axes = figure.subplots(2, SHOWN + 2, width_ratios=[1] * (SHOWN + 1) + [2.2])
    lines = ["| method | class probability of the truth | jump across the seam | ESS | s |",
             "|---|---|---|---|---|"]  # fmt: skip
    for axis, (name, (draws, ess, seconds)) in zip(axes, rows.items(), strict=True):
        probabilities = np.asarray(judge(draws)).mean(axis=0)
        draw_row(axis, name, draws, seen, probabilities, truth, ess)
        lines.append(
            f"| {name.replace(chr(10), ' ')} | {probabilities[truth]:.2f} |"
            f" {seam(draws):.2f} | {ess:.1f} | {seconds:.0f} |"
        )
    figure.savefig(options.output / "picture.png", dpi=130)
    text = "\n".join(
        [
            "# The README's picture",
            "",
            "Written by `python experiments/readme_picture/run.py`.",
            "",
            *lines,
            "",
            "![picture](picture.png)",
            "",
        ]
    )
    (options.output / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
