"""The picture at the top of the README: writes picture.png and results.md here.

    python experiments/readme_picture/run.py

A test digit of which a part is hidden, so that it may be one of several, filled in twice with the
same prior and as many network evaluations: by replacement without weights, and by the default of a
learned prior. One draw of each class that has at least a fiftieth of the weight, by a classifier.
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

STEPS, NOISE, SHOWN, LEAST = 60, 0.1, 6, 0.02


def model(prior, mask, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(mask(x), NOISE).to_event(1), obs=y)


def solve(key, prior, mask, y, judge, proposal=None, **options):
    """The draws, their weights and classes, and the seconds."""
    smc = SMC(model, proposal, num_steps=STEPS, **options)
    start = time.perf_counter()
    posterior = smc.run(key, prior, mask, y=y)
    seconds = time.perf_counter() - start
    draws = posterior.pooled("x")
    return draws, posterior.pooled_weights.ravel(), np.asarray(judge(draws)), seconds


def shares(weights: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(10,) the weight of the draws that look like each digit."""
    return np.bincount(classes.argmax(axis=1), weights, minlength=10)


def draw_row(axes, name, found, seen, rows):
    """One method: the observation, a draw of each class, and the probabilities of the classes."""
    draws, weights, classes, _ = found
    probabilities = shares(weights, classes)
    seams = np.broadcast_to(seen, draws[0].shape)
    show_image(axes[0], seams, name)
    order = [digit for digit in np.argsort(-probabilities) if probabilities[digit] >= LEAST]
    for axis in axes[1:-1]:
        axis.set_axis_off()
    for axis, digit in zip(axes[1 : 1 + SHOWN], order, strict=False):
        # The draw that its class suits best, among those of some weight.
        judged = classes[:, digit] * (weights > 0.1 / len(weights))
        axis.set_axis_on()
        show_image(axis, draws[judged.argmax()], f"a {digit}: {probabilities[digit]:.0%}")
        axis.axhline(rows - 0.5, color="#c44e52", linewidth=0.6)
    axes[-1].bar(range(10), probabilities, color="#4c72b0")
    axes[-1].set_ylim(0, 1)
    axes[-1].set_xticks(range(10))
    axes[-1].tick_params(labelsize=7)
    axes[-1].set_title("probability of each digit", fontsize=8)


def jump(draws: np.ndarray, weights: np.ndarray, rows: int) -> float:
    """Mean jump between the last row that is seen and the first that is filled in."""
    return float(weights @ np.abs(draws[:, rows] - draws[:, rows - 1]).mean(axis=(1, 2)))


def main(arguments: list[str] | None = None) -> None:
    """Solves twice and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--example", type=int, default=18, help="which bundled digit")
    parser.add_argument("--rows", type=int, default=14, help="rows that are seen, from the top")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    prior, (images, labels) = load_prior("mnist"), load_examples("mnist")
    image, truth = images[options.example], int(labels[options.example])
    observed = np.zeros(prior.event_shape, bool)
    observed[: options.rows] = True
    mask = operators.Mask.of(observed)
    keys = jax.random.split(jax.random.key(0), 2)
    y = np.asarray(mask(image) + NOISE * jax.random.normal(keys[0], mask.out_shape))
    seen = np.full(prior.event_shape, np.nan)
    seen[observed] = y
    judge = classifier.load()
    found = {
        "Replacement,\nno weights": solve(
            keys[1], prior, mask, y, judge, proposals.Replacement(), num_particles=256,
            weighted=False,
        ),
        "smcdiff": solve(keys[1], prior, mask, y, judge, num_particles=4, num_chains=64),
    }  # fmt: skip
    figure = Figure(figsize=(11.0, 3.2), layout="constrained")
    axes = figure.subplots(2, SHOWN + 2, width_ratios=[1] * (SHOWN + 1) + [2.0])
    lines = [
        f"The digit is a {truth}, of which the upper {options.rows} rows are seen.", "",
        "| method | probabilities | jump across the seam | s |", "|---|---|---|---|",
    ]  # fmt: skip
    for axis, (name, one) in zip(axes, found.items(), strict=True):
        draw_row(axis, name, one, seen, options.rows)
        probabilities = shares(one[1], one[2])
        told = ", ".join(f"{d}: {probabilities[d]:.2f}" for d in np.argsort(-probabilities)[:4])
        lines.append(
            f"| {name.replace(chr(10), ' ')} | {told} | {jump(one[0], one[1], options.rows):.2f} |"
            f" {one[3]:.0f} |"
        )
    figure.savefig(options.output / "picture.png", dpi=130)
    text = "\n".join(
        ["# The README's picture", "", "Written by `python experiments/readme_picture/run.py`.", "",
         *lines, "", "![picture](picture.png)", ""]
    )  # fmt: skip
    (options.output / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
