"""Towers of pictures and captions on captioned shapes: captions of one changed word, recall, odds.

    python experiments/clip/run.py                      # about 1 minute of processor time
    python experiments/clip/run.py --towers FOLDER      # of `smcdiff train clip shapes -o FOLDER`
    python experiments/clip/run.py --smoke              # what the tests run

A picture of each of 1,000 random captions of each part of the grammar (half of one group) is scored
with its caption and with all captions that differ in one word, and a picture of every held-out
caption with all held-out captions. Writes results.md beside itself.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from smcdiff import load_clip, shapes
from smcdiff.store._folder import CARD
from smcdiff.store.clip import KIND, Clip
from smcdiff.store.shipped import model_folder
from smcdiff.training import ClipTrainConfig, train_clip
from smcdiff.training._alternatives import Alternatives, image_vectors

HERE = Path(__file__).parent
SMALL_ENCODER = HERE.parents[1] / "tests" / "text" / "references" / "bert"
"""Of the smoke size: random weights."""
WORDS = ("count", "colour", "shape", "relation")
DISTURBED = {
    "as drawn": (0.0, 0.0),
    "noise 0.1": (0.1, 0.0),
    "noise 0.2": (0.2, 0.0),
    "blur 0.7": (0.0, 0.7),
}
"""Standard deviations: of the noise in data units, of the blur in pixels."""
BINS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
"""Of the probability of the best alternative."""


def drawn(part: shapes.Split, number: int, size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pictures and captions; keys that no training uses."""
    captions = shapes.random_captions(jax.random.key(101), number, part)
    return np.asarray(shapes.render_batch(captions, jax.random.key(102), size)), captions


def disturbed(images: np.ndarray, noise: float, blur: float) -> np.ndarray:
    """Blurred, then with noise added."""
    blurred = ndimage.gaussian_filter(images, (0.0, blur, blur, 0.0))
    return blurred + noise * np.random.default_rng(0).standard_normal(images.shape, np.float32)


def scored(clip: Clip, images: np.ndarray, captions: tuple[str, ...]) -> Alternatives:
    """Against all captions of one changed word."""
    others = [shapes.one_word_changes(caption) for caption in captions]
    return Alternatives.of(clip, jnp.asarray(images), captions, others)


def accuracy_row(names: list[str], scores: Alternatives, captions: tuple[str, ...]) -> str:
    """In all, by kind of caption, and by the word that is changed."""
    by_kind, by_word = collections.defaultdict(list), collections.defaultdict(list)
    for caption, is_right, row in zip(captions, scores.is_right, scores.scores, strict=True):
        by_kind[shapes.parse(caption).form].append(is_right)
        for place, other in enumerate(shapes.one_word_changes(caption), 1):
            by_word[shapes.changed_word(caption, other)].append(row[0] > row[place])
    cells = [*names, percent(scores.is_right)]
    cells += [percent(by_kind[kind]) for kind in shapes.FORMS]
    cells += [percent(by_word[word], 2) for word in WORDS]
    return f"| {' | '.join(cells)} |"


def percent(values, digits: int = 1) -> str:
    """A share, or a dash where there is nothing."""
    return f"{np.mean(values):.{digits}%}" if len(values) else "-"


def recall_rows(clip: Clip, size: int) -> list[str]:
    """Among all held-out captions, with a picture each, both ways."""
    captions = shapes.captions(shapes.Split.HELD_OUT)
    images = shapes.render_batch(captions, jax.random.key(103), size)
    cosines = image_vectors(clip, images) @ np.asarray(clip.text(captions)).T
    rows = []
    for name, table in (("caption of a picture", cosines), ("picture of a caption", cosines.T)):
        rank = np.sum(table > np.diagonal(table)[:, None], axis=1)
        rows.append(f"| {name} | {len(captions)} | {percent(rank < 1)} | {percent(rank < 5)} |")
    return rows


def calibration_rows(clip: Clip, scores: Alternatives) -> list[str]:
    """How often the best alternative is right, by its probability."""
    log_p = scores.log_probabilities(float(clip.temperature))
    best, is_right = np.exp(log_p.max(axis=1)), scores.is_right
    rows = []
    for low, high in zip(BINS[:-1], BINS[1:], strict=True):
        inside = (best > low) & (best <= high)
        if inside.any():
            mean = f"{best[inside].mean():.4f}"
            rows.append(
                f"| {low} to {high} | {inside.sum()} | {mean} | {is_right[inside].mean():.4f} |"
            )
    return rows


def losses(clip: Clip, scores: Alternatives) -> str:
    """A sentence about the log loss."""
    own = float(clip.temperature)
    again = scores.temperature()
    log_p = scores.log_probabilities(own)
    expected = np.exp(log_p.max(axis=1)).mean()
    return (
        f"The folder's temperature is {own:.3f} (these pictures alone would give {again:.3f}). Log"
        f" loss {scores.log_loss(own):.4f} nat at it, {scores.log_loss(1.0):.4f} at temperature 1,"
        f" the scale of the training. Mean probability of the best alternative {expected:.4f},"
        f" share of right ones {scores.accuracy:.4f}."
    )


def noisy_rows(clip: Clip, images: np.ndarray, captions: tuple[str, ...]) -> list[str]:
    """Accuracy by noise level, of a noise-conditional tower."""
    if clip.schedule is None:
        return []
    rows = ["## Noisy pictures", "", "| log-SNR | right | log loss |", "|---|---|---|"]
    others = [shapes.one_word_changes(caption) for caption in captions]
    eps = np.random.default_rng(1).standard_normal(images.shape, np.float32)
    for log_snr in range(-8, 9, 2):
        t = clip.schedule.time(jnp.float32(log_snr))
        level = clip.schedule.level(t)
        noisy = jnp.asarray(level.alpha * images + level.sigma * eps)
        times = jnp.full(len(images), t)
        scores = Alternatives.of(clip, noisy, captions, others, times)
        loss = scores.log_loss(float(clip.temperature))
        rows.append(f"| {log_snr} | {scores.accuracy:.1%} | {loss:.3f} |")
    return [*rows, ""]


def measure(clip: Clip, number: int) -> list[str]:
    """All tables."""
    size = clip.event_shape[0]
    header = ["part", "picture", "right", *shapes.FORMS, *(f"above wrong {word}" for word in WORDS)]
    lines = [
        "## Captions of one changed word",
        "",
        f"{number:,} captions of each part, half of them of one group, and a picture of each."
        " *Right* is the share of pictures that score their caption above every caption of one"
        " changed word, in all and by the number of objects or for two groups; *above wrong* is the"
        " share of single comparisons, by the word that is changed.",
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
    ]
    kept = {}
    for part in shapes.Split:
        images, captions = drawn(part, number, size)
        kept[part] = images, captions
        for name, spread in DISTURBED.items():
            scores = scored(clip, disturbed(images, *spread), captions)
            lines.append(accuracy_row([part.value, name], scores, captions))
            print(lines[-1], flush=True)
            if part is not shapes.Split.HELD_OUT:
                break
    images, captions = kept[shapes.Split.HELD_OUT]
    scores = scored(clip, images, captions)
    return [
        *lines,
        "",
        "## Recall among the held-out captions",
        "",
        "| what is looked for | among | R@1 | R@5 |",
        "|---|---|---|---|",
        *recall_rows(clip, size),
        "",
        "## Probabilities among a held-out caption and its one-word changes",
        "",
        losses(clip, scores),
        "",
        "| probability of the best | pictures | its mean | share that is right |",
        "|---|---|---|---|",
        *calibration_rows(clip, scores),
        "",
        *noisy_rows(clip, images, captions),
    ]


def smoke_towers(folder: Path) -> Clip:
    """Trained for four steps, on the encoder of the tests."""
    config = ClipTrainConfig(
        steps=4, batch_size=4, channels=(16,), encoder=str(SMALL_ENCODER), size=16,
        features=8, hidden=16, text_channels=8, heads=2,
    )  # fmt: skip
    return load_clip(train_clip("shapes", folder, config, progress_bar=False))


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--towers", default="shapes-clip", help="those that ship, or a folder of `train clip`"
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            clip, card = smoke_towers(Path(folder) / "towers"), ""
            tables = measure(clip, 20)
        command = "python experiments/clip/run.py --smoke"
    else:
        clip = load_clip(options.towers)
        card = (model_folder(options.towers, KIND) / CARD).read_text()
        tables = measure(clip, 1000)
        command = f"python experiments/clip/run.py --towers {options.towers}"
    lines = ["# Towers of pictures and captions", "", f"Written by `{command}`", "", *tables]
    if card:
        lines += ["## The card of the towers", "", *(f"> {line}" for line in card.splitlines())]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
