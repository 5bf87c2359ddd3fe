"""Towers of emoji on frozen image features: recall of held-out names, which chance finds 0.007 of.

    python experiments/emoji/run.py --data ../shared/data/emoji64 --work FOLDER
    python experiments/emoji/run.py --smoke              # what the tests run

Writes all 3,822 emoji without skin tones into FOLDER/all (`data.py`), trains towers on them into
FOLDER/towers unless they are there, by the dense layers that ``CONFIG`` declares, and writes
results.md beside itself. Features of pictures are computed once, into FOLDER/features.safetensors.

README.md has the command that trains a prior of emoji, which nothing here needs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import data
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from smcdiff import load_clip
from smcdiff.base._pixels import to_unit_range
from smcdiff.store.clip import Clip
from smcdiff.training import ClipTrainConfig, train_clip
from smcdiff.training._alternatives import image_vectors
from smcdiff.training._captioned import CaptionedFiles

HERE = Path(__file__).parent
SMALL_ENCODER = HERE.parents[1] / "tests" / "text" / "references" / "bert"
"""Of the smoke size: random weights."""
CONFIG = ClipTrainConfig(
    steps=400, batch_size=256, learning_rate=1e-3, ema=0.99, checkpoint_every=100,
    features=256, hidden=512, dropout=0.5, held_out=0.07, image_features="efficientnet-lite0",
    description="Emoji of 64 x 64 against their names, clean pictures, in [-1, 1]",
    licence=data.LICENCE,
)  # fmt: skip
STYLES = ("twemoji", "noto")


class HeldOut(NamedTuple):
    """Pictures whose names the towers have not seen, or as many whose names they have.

    Attributes:
        entries: of captions.json.
        cosines: of each picture with each name.
        names: each once.
        own: place of each picture's name.
    """

    entries: list[dict]
    cosines: Float[np.ndarray, "n m"]
    names: list[str]
    own: np.ndarray

    @classmethod
    def of(cls, clip: Clip, folder: Path, pictures: CaptionedFiles, rows: np.ndarray) -> HeldOut:
        """Of some pictures of a folder."""
        everything = json.loads((folder / "captions.json").read_text())
        entries = [everything[row] for row in rows]
        names = sorted({entry["caption"] for entry in entries})
        images = jnp.asarray(to_unit_range(np.asarray(pictures.images[rows])))
        cosines = image_vectors(clip, images) @ np.asarray(clip.text(names)).T
        own = np.array([names.index(entry["caption"]) for entry in entries])
        return cls(entries, cosines, names, own)

    def only(self, is_in) -> HeldOut:
        """The pictures whose entries are wanted, and their names."""
        rows = np.array([row for row, entry in enumerate(self.entries) if is_in(entry)], int)
        places = sorted(set(self.own[rows]))
        return HeldOut(
            [self.entries[row] for row in rows], self.cosines[rows][:, places],
            [self.names[place] for place in places],
            np.array([places.index(self.own[row]) for row in rows], int),
        )  # fmt: skip

    def of_pictures(self) -> np.ndarray:
        """For each picture, how many names score above its own."""
        own = np.take_along_axis(self.cosines, self.own[:, None], axis=1)
        return np.sum(self.cosines > own, axis=1)

    def of_names(self, style: str) -> np.ndarray:
        """For each name, how many pictures of one style score above its own."""
        one = self.only(lambda entry: entry["style"] == style)
        table = one.cosines.T[one.own]
        return np.sum(table > np.diagonal(table)[:, None], axis=1)


def row(what: str, among: int, ranks: np.ndarray) -> str:
    """Of a table."""
    first, five = np.mean(ranks < 1), np.mean(ranks < 5)
    return (
        f"| {what} | {len(ranks)} | {among} | {first:.3f} | {five:.3f} | {1 / max(among, 1):.3f} |"
    )


def tables(clip: Clip, folder: Path, pictures: CaptionedFiles) -> list[str]:
    """Recall of held-out names, by direction, style and kind; of seen ones beside it."""
    out = HeldOut.of(clip, folder, pictures, pictures.out)
    number = len(out.names)
    kinds = {
        "objects, animals, food, places, activities, smileys": lambda entry: (
            entry["category"] not in ("People & Body", "Flags", "Symbols", "Component")
        ),
        "people, flags, symbols": lambda entry: (
            entry["category"] in ("People & Body", "Flags", "Symbols", "Component")
        ),
        "the subset of the prior": data.is_chosen,
    }
    lines = [
        "| what is looked for | queries | among | R@1 | R@5 | chance |",
        "|---|---|---|---|---|---|",
        row("name of a held-out picture, both styles", number, out.of_pictures()),
    ]
    for style in STYLES:
        one = out.only(lambda entry, style=style: entry["style"] == style)
        lines.append(row(f"name of a held-out picture, {style}", number, one.of_pictures()))
    for style in STYLES:
        lines.append(row(f"held-out picture of a name, {style}", number, out.of_names(style)))
    for kind, is_in in kinds.items():
        some = out.only(is_in)
        if some.entries:
            lines.append(row(f"name, of and among {kind}", len(some.names), some.of_pictures()))
    every = sorted(set(pictures.captions))
    texts = np.asarray(clip.text(every))
    images = jnp.asarray(to_unit_range(np.asarray(pictures.images[pictures.out])))
    cosines = image_vectors(clip, images) @ texts.T
    own = np.array([every.index(pictures.captions[index]) for index in pictures.out])
    harder = HeldOut(out.entries, cosines, every, own)
    lines.append(row("name of a held-out picture, all names", len(every), harder.of_pictures()))
    chosen = np.random.default_rng(0).permutation(sorted(pictures.trained_captions()))[:number]
    seen = np.flatnonzero([caption in set(chosen) for caption in pictures.captions])
    learned = HeldOut.of(clip, folder, pictures, seen)
    lines.append(row("name of a picture that was trained on", number, learned.of_pictures()))
    return lines


def smoke_data(folder: Path) -> Path:
    """Of emoji64's form: noise whose brightness the name tells."""
    folder.mkdir()
    colours = ("black heart", "grey heart", "white heart", "red heart", "blue heart", "pink heart")
    entries, random = [], np.random.default_rng(0)
    for index, name in enumerate(colours * 3):
        for style in STYLES:
            entries.append({
                "style": style, "name": f"{name} {index}", "skin": "1F3FB" if index == 7 else "",
                "unified": str(index), "tags": [], "category": "Smileys & Emotion",
                "subcategory": "heart" if index % 2 else "face-costume",
            })  # fmt: skip
    images = random.integers(0, 256, (len(entries), 16, 16, 3), dtype=np.uint8)
    np.savez(folder / "emoji64_rgb.npz", image=images)
    (folder / "captions.json").write_text(json.dumps(entries))
    return folder


SMOKE = ClipTrainConfig(
    steps=4, batch_size=4, channels=(16,), encoder=str(SMALL_ENCODER), features=8, hidden=16,
    text_channels=8, heads=2, dropout=0.2, held_out=0.3,
)  # fmt: skip
"""A U-Net, for the frozen features come with a package that is not there everywhere."""


def measure(source: Path, work: Path, config: ClipTrainConfig) -> tuple[list[str], str]:
    """The tables and the card; data and towers are made where they are not there."""
    folder, towers = work / "all", work / "towers"
    work.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    if not folder.exists():
        data.write(source, folder, every=True)
    if not (towers / "config.json").exists():
        train_clip(folder, towers, config, progress_bar=True)
    trained = time.process_time() - start
    held_out = json.loads((towers / "config.json").read_text())["training"]["held_out"]
    if held_out != config.held_out:
        raise SystemExit(f"{towers} holds out {held_out} of the names; train others")
    pictures = CaptionedFiles(folder, config)
    lines = [
        f"{pictures.description[0].upper()}{pictures.description[1:]}, chosen by the hash of the"
        " name; a name is held out with the pictures of both styles. A query is right (R@1) where"
        " its own candidate scores above all others, and within R@5 where at most four score"
        f" above it. This run: {trained:.0f} CPU-seconds for data, features and training"
        f" {'' if trained > 10 else '(done before) '}and"
        f" {{judging:.0f}} for the table.",
        "",
        *tables(load_clip(towers), folder, pictures),
    ]
    judging = time.process_time() - start - trained
    return [line.format(judging=judging) for line in lines], (towers / "card.md").read_text()


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of emoji64")
    parser.add_argument("--work", type=Path, help="folder of data, features and towers")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    if options.smoke:
        command = "python experiments/emoji/run.py --smoke"
        with tempfile.TemporaryDirectory() as folder:
            source = smoke_data(Path(folder) / "emoji64")
            lines, card = measure(source, Path(folder) / "work", SMOKE)
    elif options.data is None or options.work is None:
        parser.error("give --data, the folder of emoji64, and --work, for data and towers")
    else:
        command = f"python experiments/emoji/run.py --data {options.data} --work {options.work}"
        file = str(options.work / "features.safetensors")
        config = dataclasses.replace(CONFIG, image_features_file=file)
        lines, card = measure(options.data, options.work, config)
    lines = [
        "# Towers of emoji", "", f"Written by `{command}`", "", *lines, "",
        f"Licences: {data.LICENCE}.", "", "## The card of the towers", "",
        *(f"> {line}".rstrip() for line in card.splitlines()),
    ]  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
