"""Captioned shapes: what the checker accepts, what it refuses, and what pictures cost.

    python experiments/shapes/run.py            # about 3 minutes of processor time
    python experiments/shapes/run.py --smoke    # what the tests run

1,000 captions, half of them of one group, and a picture of each, as drawn and disturbed; every
picture is scored against its caption and against all captions that differ in one word. Writes
results.md and picture.png beside itself.
"""

from __future__ import annotations

import argparse
import collections
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from smcdiff import shapes
from smcdiff.results import plots

HERE = Path(__file__).parent
SIZES = (16, 32, 64)
KEY = jax.random.key(0)
WORDS = ("count", "colour", "shape", "relation")
DISTURBED = {
    "as drawn": (0.0, 0.0),
    "noise 0.1": (0.1, 0.0),
    "noise 0.2": (0.2, 0.0),
    "blur 0.7": (0.0, 0.7),
    "noise 0.1, blur 0.7": (0.1, 0.7),
    "noise 0.1, blur 1": (0.1, 1.0),
}
"""Standard deviations: of the noise in data units, of the blur in pixels of a 32 x 32 picture."""


def disturbed(images: np.ndarray, noise: float, blur: float) -> np.ndarray:
    """Blurred, then with noise added."""
    width = blur * images.shape[1] / 32
    blurred = ndimage.gaussian_filter(images, (0.0, width, width, 0.0))
    return blurred + noise * np.random.default_rng(0).standard_normal(images.shape, np.float32)


def score(images: np.ndarray, captions: list[shapes.Caption]) -> tuple[dict, dict]:
    """Whether captions are accepted, by kind; and captions with one word changed, by word."""
    right, wrong = collections.defaultdict(list), collections.defaultdict(list)
    for image, caption in zip(images, captions, strict=True):
        scene = shapes.read(image)
        right[caption.form].append(scene is not None and not scene.contradiction(caption))
        for other in map(shapes.parse, shapes.one_word_changes(caption)):
            accepted = scene is not None and not scene.contradiction(other)
            wrong[shapes.changed_word(caption, other)].append(accepted)
    return right, wrong


def score_row(size: int, name: str, right: dict, wrong: dict) -> str:
    """A row of the table."""
    cells = [f"{size}", name, f"{np.mean(sum(right.values(), [])):.1%}"]
    cells += [f"{np.mean(right[kind]):.1%}" for kind in shapes.FORMS]
    cells += [f"{sum(wrong[word])} of {len(wrong[word]):,}" for word in WORDS]
    return f"| {' | '.join(cells)} |"


def cost_row(size: int, repeats: int) -> str:
    """Processor time of a batch of 64 pictures, and of the check of one."""
    captions = shapes.random_captions(KEY, 64)
    images = np.asarray(shapes.render_batch(captions, KEY, size))  # compiled
    start = time.process_time()
    for key in jax.random.split(KEY, repeats):
        shapes.render_batch(captions, key, size).block_until_ready()
    drawn = (time.process_time() - start) / repeats
    start = time.process_time()
    for image, caption in zip(images, captions, strict=True):
        shapes.check(image, caption)
    checked = (time.process_time() - start) / len(images)
    return f"| {size} | {1e3 * drawn:.0f} | {1e3 * checked:.1f} |"


def split_rows() -> list[str]:
    """How many captions each part has, of one group and of two, with an example."""
    rows = []
    for part in shapes.Split:
        captions = shapes.captions(part)
        alone = sum(len(shapes.parse(caption).groups) == 1 for caption in captions)
        examples = f"{captions[0]}; {captions[-1]}"
        rows.append(f"| {part.value} | {alone} | {len(captions) - alone:,} | {examples} |")
    return rows


def draw_picture(path: Path) -> None:
    """Pictures with their captions, and one scene at all sizes and disturbed."""
    figure = Figure(figsize=(11.0, 8.4), layout="constrained")
    axes = figure.subplots(4, 6)
    captions = shapes.random_captions(jax.random.key(4), 18, None)
    images = shapes.render_batch(captions, KEY)
    shown = list(zip(images, captions, strict=True))
    caption = "two red circles above a blue square"
    scenes = {size: np.asarray(shapes.render(caption, KEY, size))[None] for size in SIZES}
    shown += [(scene[0], f"{size} x {size}") for size, scene in scenes.items()]
    for name in ("noise 0.1", "noise 0.1, blur 0.7"):
        shown.append((disturbed(scenes[32], *DISTURBED[name])[0], f"32 x 32, {name}"))
    shown.append((shapes.render(caption, KEY, background=shapes.WHITE), "32 x 32, white"))
    for axis, (image, title) in zip(axes.flat, shown, strict=True):
        plots.show_image(axis, np.asarray(image))
        axis.set_title("\n".join(textwrap.wrap(title, 22)), fontsize=9)
    figure.savefig(path, dpi=90)


def table(number: int) -> list[str]:
    """The rows of all sizes and disturbances."""
    texts = shapes.random_captions(KEY, number, None)
    captions = [shapes.parse(text) for text in texts]
    rows = []
    for size in SIZES:
        images = np.asarray(shapes.render_batch(texts, jax.random.key(1), size))
        cases = {name: disturbed(images, *spread) for name, spread in DISTURBED.items()}
        white = shapes.render_batch(texts, jax.random.key(1), size, background=shapes.WHITE)
        cases["white background"] = np.asarray(white)
        for name, changed in cases.items():
            rows.append(score_row(size, name, *score(changed, captions)))
            print(rows[-1], flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    number, repeats = (40, 1) if options.smoke else (1000, 50)
    command = "python experiments/shapes/run.py" + (" --smoke" if options.smoke else "")
    header = ["size", "picture", "accepted", *shapes.FORMS, *(f"wrong {word}" for word in WORDS)]
    lines = [
        "# Captioned shapes",
        "",
        f"Written by `{command}`",
        "",
        "## The checker",
        "",
        f"{number:,} captions, half of them of one group, and a picture of each. *Accepted* is the"
        " share of pictures whose own caption is accepted, in all and by the number of objects or"
        " for two groups; *wrong* is how many captions with that one thing changed are accepted, of"
        " all that there are. Blur is in pixels of a 32 x 32 picture.",
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
        *table(number),
        "",
        "## The captions",
        "",
        "| part | one group | two groups | first and last |",
        "|---|---|---|---|",
        *split_rows(),
        "",
        "## Processor time",
        "",
        "| size | a batch of 64 pictures, ms | a check, ms |",
        "|---|---|---|",
        *(cost_row(size, repeats) for size in SIZES),
        "",
        "![captioned pictures](picture.png)",
        "",
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.md").write_text("\n".join(lines))
    draw_picture(options.output / "picture.png")


if __name__ == "__main__":
    main()
