"""Is the shipped digits prior any good? Writes results.md and samples.png here.

    python experiments/mnist_prior/run.py

Draws 256 digits at 100 steps and asks a classifier that was trained on MNIST (classifier.py), and
measures the denoising error on digits of the test set, which no training has seen.
"""

from __future__ import annotations

import time
from pathlib import Path

import classifier
import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import load_prior
from smcdiff.base._pixels import to_unit_range
from smcdiff.results import plots

HERE = Path(__file__).parent
NUMBER, STEPS, CHUNK, SURE = 256, 100, 64, 0.9


def denoising_errors(name: str) -> dict[int, float]:
    """Mean squared error per pixel of the denoised mean, by log-SNR, on 256 test digits."""
    prior = load_prior(name)
    with np.load(classifier.DATA) as arrays:
        images = arrays["x_test"]
    chosen = np.random.default_rng(0).permutation(len(images))[:NUMBER]
    clean = jnp.asarray(to_unit_range(images[chosen, ..., None]))
    noise = jax.random.normal(jax.random.key(0), clean.shape)

    @jax.jit
    def error(prior, t):
        level = prior.schedule.level(t)
        noisy = level.alpha * clean + level.sigma * noise
        return jnp.mean((jax.vmap(prior.denoise, (0, None))(noisy, t) - clean) ** 2)

    levels = range(-10, 11, 2)
    return {v: float(error(prior, prior.schedule.time(jnp.asarray(float(v))))) for v in levels}


def main() -> None:
    """Draws, judges, and writes the results."""
    prior = load_prior("mnist")
    prior.num_steps = STEPS
    draw = jax.jit(lambda key, prior: prior.sample(key, (CHUNK,)))
    start = time.perf_counter()
    keys = jax.random.split(jax.random.key(0), NUMBER // CHUNK)
    samples = np.concatenate([np.asarray(draw(key, prior)) for key in keys])
    seconds = time.perf_counter() - start
    plots.save_grid(samples, HERE / "samples.png", columns=16, scale=3)
    probabilities = np.asarray(classifier.load()(samples))
    sure = probabilities.max(axis=1) > SURE
    counts = np.bincount(probabilities.argmax(axis=1), minlength=10)
    lines = [
        "# The digits prior, judged",
        "",
        "Written by `python experiments/mnist_prior/run.py`; classifier trained by",
        "`python experiments/mnist_prior/classifier.py`.",
        "",
        f"{NUMBER} draws at {STEPS} steps, key 0, {seconds:.0f} s with compilation.",
        f"The classifier (test accuracy {classifier.accuracy():.2%}) gives more than {SURE}",
        f"to one digit for **{sure.mean():.1%}** of the draws.",
        "",
        "| digit | " + " | ".join(map(str, range(10))) + " |",
        "|---|" + "---|" * 10,
        "| draws | " + " | ".join(map(str, counts)) + " |",
        "",
        "![samples](samples.png)",
        "",
        "Denoising error on 256 random digits of the test set, mean squared per pixel (data in",
        "[-1, 1]):",
        "",
        "| log-SNR | mnist | mnist-classes, no class given |",
        "|---|---|---|",
    ]
    first, second = (denoising_errors(name) for name in ("mnist", "mnist-classes"))
    lines += [f"| {v} | {first[v]:.5f} | {second[v]:.5f} |" for v in first] + [""]
    (HERE / "results.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
