"""Conditional digits: is the class right, and how diverse are the draws, against the strength?

    python experiments/guidance/run.py            # about 10 minutes on two cores
    python experiments/guidance/run.py --smoke    # what the tests run

Writes results.md and results.png. The prior is mnist-classes. Classifier-free guidance draws from
``prior.given(label, strength)``; classifier guidance tilts the unconditional prior by the
noise-conditional classifier in classifier/ (its card has the command that trained it). The judge is
another network, ../mnist_prior/classifier.py. Diversity: the mean distance of two draws of a class,
over that of two real test digits of it; 1 is as diverse as MNIST.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import kernels, load_classifier, load_examples, load_prior, schedules
from smcdiff.diffusion.laws import Tilted
from smcdiff.diffusion.schedules import Level

HERE = Path(__file__).parent
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)


def free(prior, label, key, strength):
    """One draw by classifier-free guidance."""
    return prior.given(label, strength).sample(key)


def by_classifier(prior, label, key, strength, classifier):
    """One draw by classifier guidance: each reverse step tilted by the classifier's gradient."""
    log_prob = classifier.given(label)
    levels = schedules.UniformLogSNR()(prior.schedule, prior.num_steps)

    def step(carry, pair):
        x, key = carry
        t, s = pair
        key, key_step = jax.random.split(key)
        event = x.reshape(prior.event_shape)
        gradient = jax.grad(lambda x: strength * log_prob(x, t.time))(event)
        law = kernels.DDIM()(prior, x, jnp.ravel(prior.denoise(event, t.time)), t, s)
        return (Tilted.of(law, jnp.ravel(gradient)).sample(key_step), key), None

    key, key_start = jax.random.split(key)
    pairs = Level(*(field[:-1] for field in levels)), Level(*(field[1:] for field in levels))
    start = prior.terminal().sample(key_start)
    (x, _), _ = jax.lax.scan(step, (start, key), pairs)
    return x.reshape(prior.event_shape)


def diversity(draws: np.ndarray) -> float:
    """Mean Euclidean distance of two draws."""
    flat = draws.reshape(len(draws), -1)
    squares = np.sum(flat**2, axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * flat @ flat.T, 0.0))
    return float(distances.sum() / (len(flat) * (len(flat) - 1)))


def real_diversity() -> float:
    """Mean over the classes of the distance of two real digits of a class."""
    sys.path.insert(0, str(HERE.parent / "mnist_prior"))
    import classifier as judge

    if judge.DATA.exists():
        with np.load(judge.DATA) as arrays:
            images, labels = arrays["x_test"] / 127.5 - 1.0, arrays["y_test"]
    else:
        images, labels = load_examples("mnist-classes")
    return float(np.mean([diversity(images[labels == k][:100]) for k in range(10)]))


def run(options) -> dict[str, list[tuple[float, ...]]]:
    """Rows (strength, accuracy, sure, diversity, seconds) by method."""
    sys.path.insert(0, str(HERE.parent / "mnist_prior"))
    import classifier as judge

    prior = load_prior("mnist-classes")
    prior.num_steps = options.steps
    labels = jnp.arange(10 * options.each) % 10
    methods = {"classifier-free": free}
    networks: dict[str, tuple] = {"classifier-free": ()}
    if (HERE / "classifier" / "config.json").exists():
        methods["classifier"] = by_classifier
        networks["classifier"] = (load_classifier(HERE / "classifier"),)
    probabilities, real = judge.load(), real_diversity()
    rows: dict[str, list[tuple[float, ...]]] = {}
    for name, method in methods.items():

        @jax.jit
        def draw(prior, labels, keys, strength, networks, method=method):
            def one(label, key):
                return method(prior, label, key, strength, *networks)

            return jax.vmap(one)(labels, keys)

        for strength in options.strengths:
            start, parts = time.perf_counter(), []
            for index, chunk in enumerate(jnp.split(labels, options.each)):
                keys = jax.random.split(jax.random.fold_in(jax.random.key(0), index), len(chunk))
                parts.append(np.asarray(draw(prior, chunk, keys, strength, networks[name])))
            draws = np.concatenate(parts)
            judged = np.asarray(probabilities(jnp.asarray(draws)))
            accuracy = float(np.mean(judged.argmax(-1) == np.asarray(labels)))
            sure = float(np.mean(judged.max(-1) > 0.9))
            spread = [diversity(draws[np.asarray(labels) == k]) for k in range(10)]
            row = (strength, accuracy, sure, float(np.mean(spread)) / real,
                   time.perf_counter() - start)  # fmt: skip
            print(name, np.round(row, 3), flush=True)
            rows.setdefault(name, []).append(row)
    return rows


def write(rows, options, arguments: str) -> None:
    """The table and the curve."""
    lines = ["# Conditional digits against the strength of guidance", "", "Written by", ""]
    lines += [f"    python experiments/guidance/run.py {arguments}".rstrip(), ""]
    count = 10 * options.each
    lines += [
        f"{count} draws a row, as many of each class, {options.steps} ancestral steps, the same",
        "noise in every row. A share p has standard error sqrt(p (1 - p) / draws), at most",
        f"{0.5 / count**0.5:.3f}.", "",
        "| guidance | omega | class right | above 0.9 | diversity | s |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, table in rows.items():
        for strength, accuracy, sure, spread, seconds in table:
            lines.append(
                f"| {name} | {strength:g} | {accuracy:.1%} | {sure:.1%} | {spread:.2f} |"
                f" {seconds:.0f} |"
            )
    lines += ["", "![results](results.png)", ""]
    (options.output / "results.md").write_text("\n".join(lines))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, table in rows.items():
        columns = np.array(table)
        left.plot(columns[:, 0], columns[:, 1], "o-", label=name)
        right.plot(columns[:, 3], columns[:, 1], "o-", label=name)
        for strength, accuracy, _, spread, _ in table:
            right.annotate(f"{strength:g}", (spread, accuracy), (4, 4),
                           textcoords="offset points", fontsize=8)  # fmt: skip
    left.set_xlabel("omega")
    left.set_ylabel("class right")
    right.set_xlabel("diversity over MNIST's (numbers: omega)")
    left.legend()
    figure.savefig(options.output / "results.png", dpi=130)


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size")
    parser.add_argument("--each", type=int, default=20, help="draws a class")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    options.strengths = STRENGTHS
    given = f"--each {options.each} --steps {options.steps}"
    if options.smoke:
        given, options.each, options.steps, options.strengths = "--smoke", 2, 3, (0.0, 2.0)
    options.output.mkdir(parents=True, exist_ok=True)
    write(run(options), options, given)


if __name__ == "__main__":
    main()
