"""How much the text encoder matters: one small prior of captioned shapes by three encoders.

    python experiments/encoder_ablation/run.py            # hours on two cores; goes on where it was
    python experiments/encoder_ablation/run.py --smoke    # what the tests run

Trains the same network for as many steps on MiniLM's token states with their pooled vector, on the
pooled vector alone, and on a bag of words; all else, the seed too, is equal. Then the checker says
how many draws obey their captions, seen and held out, by strength of guidance. (Saharia et al.
2022, section 4.4, compare encoders by size.) Priors and draws are kept in --runs.

Writes results.md, results.json, results.png and draws.png beside itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from encoders import ENCODERS, TOKENS, encoded
from matplotlib.figure import Figure

from smcdiff import load_prior, shapes
from smcdiff.base._files import claim
from smcdiff.base._pixels import to_unit_range
from smcdiff.priors import DiffusionPrior
from smcdiff.results import plots
from smcdiff.training import TextTrainConfig, train_text

HERE = Path(__file__).parent
SMALL_ENCODER = HERE.parents[1] / "tests" / "text" / "references" / "bert"
"""Of the smoke size: random weights."""
sys.path.insert(0, str(HERE.parent / "text_pareto"))
from scored_draws import (  # noqa: E402
    Size,
    checked,
    drawn_captions,
    draws,
    kind_cells,
    markdown,
    mistakes,
    parsed,
    share_cell,
    weights_of,
)

PARTS = {"seen": shapes.Split.TRAIN, "held out": shapes.Split.HELD_OUT}
STRENGTHS = (1.0, 2.0, 3.0, 5.0)
NUM_SHOWN = 8


def trained(name: str, config: TextTrainConfig, runs: Path) -> tuple[DiffusionPrior, str]:
    """The prior of an encoder and the hash of its weights; trained, or trained further, here."""
    stem = name.replace(" ", "-")
    folder = runs / stem
    if not (folder / "config.json").exists():
        print(f"training on the {name}", flush=True)
        if name != TOKENS:
            file = folder / "captions.safetensors"  # where `smcdiff train text` looks first
            if not file.exists():
                folder.mkdir(exist_ok=True)
                encoded(name, config.encoder).save(file)
            config = dataclasses.replace(config, encoder=stem)
        train_text("shapes", folder, config)
    return load_prior(folder), weights_of(folder)


def judged(pictures: np.ndarray, captions: tuple[str, ...]) -> dict:
    """Shares of right pictures; of two groups those whose objects are right, and their order."""
    wrong = mistakes(pictures, captions)
    related = [w for w, c in zip(wrong, captions, strict=True) if shapes.parse(c).relation]
    objects = [w for w in related if set(w) <= {"relation"}]
    return checked(pictures, captions) | {
        "related": len(related), "objects": len(objects),
        "order": sum(not w for w in objects),
    }  # fmt: skip


def measure(
    config: TextTrainConfig, strengths: tuple[float, ...], size: Size, runs: Path
) -> tuple[list[dict], dict[str, np.ndarray]]:  # fmt: skip
    """All cells, and the draws that are shown."""
    cells, shown = [], {}
    for name in ENCODERS:
        prior, weights = trained(name, config, runs)
        prior.num_steps = size.steps
        pictures = {}
        for part, split in PARTS.items():
            captions = drawn_captions(size.n, split)
            text = prior.denoiser.reader.encoded(captions)
            cache = runs / "draws" / name.replace(" ", "-") / split.value
            size.claim(cache, {"prior": weights})
            for strength in strengths:
                found = draws(prior, text, strength, "none", size, cache)
                pictures[part, strength] = found
                scores = judged(found, captions)
                cells.append({"encoder": name, "captions": part, "strength": strength, **scores})
                print(*table_row(cells[-1], size.n), flush=True)
        strength = best(cells, name)
        for at in dict.fromkeys((strengths[0], strength)):
            shown[f"{name}, {at:g}"] = pictures["held out", at][:NUM_SHOWN]
    return cells, shown


def best(cells: list[dict], name: str) -> float:
    """The strength at which most seen captions are obeyed, the weaker where two are as good."""
    own = [cell for cell in cells if (cell["encoder"], cell["captions"]) == (name, "seen")]
    return max(own, key=lambda cell: (cell["accuracy"], -cell["strength"]))["strength"]


def table_row(cell: dict, n: int) -> list[str]:
    """Of a cell."""
    related, objects = cell["related"], cell["objects"]
    return [
        cell["encoder"], f"{cell['strength']:g}", share_cell(cell["accuracy"], n),
        *kind_cells(cell["by_kind"]), f"{objects / related:.1%}" if related else "-",
        f"{cell['order'] / objects:.1%} of {objects}" if objects else "-",
    ]  # fmt: skip


def tables(cells: list[dict], strengths: tuple[float, ...], n: int) -> list[str]:
    """Of strength 1 and the best one, seen captions first."""
    header = ["encoder", "strength", "right", *shapes.FORMS, "objects right", "their order right"]
    lines = []
    for part in PARTS:
        rows = []
        for name in ENCODERS:
            for strength in dict.fromkeys((strengths[0], best(cells, name))):
                wanted = name, part, strength
                rows += [
                    table_row(cell, n) for cell in cells
                    if (cell["encoder"], cell["captions"], cell["strength"]) == wanted
                ]  # fmt: skip
        lines += [f"## Captions {part}", "", *markdown(header, rows), ""]
    return lines


def draw_curves(cells: list[dict], path: Path) -> None:
    """Accuracy against strength, a panel for each part."""
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    for axis, part in zip(figure.subplots(1, len(PARTS), sharey=True), PARTS, strict=True):
        for name in ENCODERS:
            own = [c for c in cells if (c["encoder"], c["captions"]) == (name, part)]
            x, y = ([cell[key] for cell in own] for key in ("strength", "accuracy"))
            axis.plot(x, y, "o-", markersize=4, label=name)
        axis.set(title=f"captions {part}", xlabel="strength", ylabel="share of captions obeyed")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def report(
    cells: list[dict], shown: dict[str, np.ndarray], config: TextTrainConfig, size: Size,
    strengths: tuple[float, ...], command: str, output: Path,
) -> None:  # fmt: skip
    """Writes the files."""
    output.mkdir(parents=True, exist_ok=True)
    draw_curves(cells, output / "results.png")
    columns = drawn_captions(size.n, shapes.Split.HELD_OUT)[:NUM_SHOWN]
    sheet = to_unit_range(np.concatenate(list(shown.values())))
    plots.save_captioned(sheet, columns, output / "draws.png", scale=3)
    text = [
        "# The text encoder, taken apart", "", f"Written by `{command}`", "",
        *(f"- *{name}*: {what}." for name, what in ENCODERS.items()), "",
        f"Each prior: {config.steps:,} steps of {config.batch_size} pictures of {config.size} x"
        f" {config.size}, patch {config.patch}, channels {config.channels}, seed {config.seed}."
        f" {size.n} captions of each part, half of them of one group, a draw of each by"
        f" {size.steps} steps without threshold, the same noise everywhere. *Right*: by the"
        " checker, all of the caption, with its standard error, and by the number of objects or for"
        " two groups. *Objects right*: of two groups, whatever their order; of those *their order"
        " right*. Strength 1, and that of"
        f" {', '.join(f'{s:g}' for s in strengths)} at which most seen captions are obeyed.", "",
        *tables(cells, strengths, size.n), "![by strength](results.png)", "",
        f"Held-out captions, a column each; rows (encoder, strength): {'; '.join(shown)}.", "",
        "![draws](draws.png)",
    ]  # fmt: skip
    (output / "results.md").write_text("\n".join(text).rstrip() + "\n")
    everything = {"size": dataclasses.asdict(size), "training": dataclasses.asdict(config)}
    content = json.dumps(everything | {"cells": cells}, indent=1)
    (output / "results.json").write_text(content + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training-steps", type=int, default=4000, help="of each prior")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pixels", type=int, default=32, help="a side")
    parser.add_argument("--patch", type=int, default=4)
    parser.add_argument("--channels", type=int, nargs="+", default=(48, 96))
    parser.add_argument("-n", type=int, default=256, help="captions of each part")
    parser.add_argument("--steps", type=int, default=50, help="of the sampler")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="priors and draws")
    options = parsed(parser, HERE, arguments)
    if options.smoke:
        size, strengths = Size(n=4, steps=2, chunk=4), STRENGTHS[:2]
        config = TextTrainConfig(
            steps=2, batch_size=4, channels=(16,), size=16, patch=4, text_channels=8, heads=2,
            encoder=str(SMALL_ENCODER),
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            found = measure(config, strengths, size, Path(folder))
    else:
        size, strengths = Size(options.n, options.steps), STRENGTHS
        config = TextTrainConfig(
            steps=options.training_steps, batch_size=options.batch_size, patch=options.patch,
            channels=tuple(options.channels), size=options.pixels,
            sample_every=options.training_steps + 1,  # the picture at the end alone
        )  # fmt: skip
        options.runs.mkdir(parents=True, exist_ok=True)
        identity = {k: str(v) for k, v in dataclasses.asdict(config).items()}
        claim(options.runs / "of.json", identity, "training")
        found = measure(config, strengths, size, options.runs)
    report(*found, config, size, strengths, options.command, options.output)


if __name__ == "__main__":
    main()
