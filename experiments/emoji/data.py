"""Captioned emoji as `smcdiff train text` and `train clip` read them: pictures and captions.json.

    python experiments/emoji/data.py --data ../shared/data/emoji64 -o FOLDER          # 686 pictures
    python experiments/emoji/data.py --data ../shared/data/emoji64 -o FOLDER --all    # 3,822

A caption is the emoji's CLDR short name, and both drawing styles of an emoji have it, so that both
are held out where the name is. Variants of skin tone are left out: each would be nearly a copy of a
picture that is seen. Without --all the subcategories of Unicode in `SUBCATEGORIES` are taken.

Licences: Twemoji graphics CC BY 4.0 (Twitter, Inc and other contributors; attribution needed), Noto
Emoji graphics Apache-2.0 (Google), emojibase-data MIT, CLDR names Unicode License v3.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

LICENCE = (
    "pictures: Twemoji, CC BY 4.0 (Twitter, Inc and other contributors), and Noto Emoji, Apache-2.0"
    " (Google); names: Unicode License v3 (CLDR), by emojibase-data (MIT)"
)
SUBCATEGORIES = (
    "heart", "face-", "cat-face", "animal-mammal", "food-fruit", "food-vegetable", "plant-flower",
    "sky & weather", "sport",
)  # fmt: skip
"""Hearts, faces, cat faces, mammals, fruit, vegetables, flowers, sky (clocks are "time"), sport;
what ends in a dash begins the names of several."""
_KEPT = ("style", "unified", "tags", "category", "subcategory")


def is_chosen(entry: dict[str, Any]) -> bool:
    """Whether an emoji is of the subcategories."""
    name = entry["subcategory"]
    return any(name.startswith(s) if s.endswith("-") else name == s for s in SUBCATEGORIES)


def write(data: Path, folder: Path, *, every: bool = False) -> int:
    """Writes pictures.npz and captions.json.

    Args:
        data: folder of emoji64: emoji64_rgb.npz and captions.json in the same order.
        folder: a new one.
        every: all emoji and not the subcategories only.

    Returns:
        The number of pictures.
    """
    entries: Sequence[dict[str, Any]] = json.loads((data / "captions.json").read_text())
    with np.load(data / "emoji64_rgb.npz") as arrays:
        images = arrays["image"]
    is_wanted = [not entry["skin"] and (every or is_chosen(entry)) for entry in entries]
    rows = np.flatnonzero(is_wanted).tolist()
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "pictures.npz", images=images[rows])
    captions = [
        {"caption": entries[row]["name"], **{key: entries[row][key] for key in _KEPT}}
        for row in rows
    ]
    (folder / "captions.json").write_text(json.dumps(captions, indent=0, ensure_ascii=False))
    return len(rows)


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of emoji64")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--all", action="store_true", help="all emoji")
    options = parser.parse_args(arguments)
    if options.output.exists():
        parser.error(f"{options.output} exists; nothing is overwritten: give a new folder")
    count = write(options.data, options.output, every=options.all)
    print(f"{count} pictures are in {options.output}")


if __name__ == "__main__":
    main()
