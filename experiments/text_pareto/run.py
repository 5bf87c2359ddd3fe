"""What guidance buys and costs: captions obeyed against distance to real pictures, by strength.

    smcdiff train text shapes -o PRIOR                             # first; hours
    smcdiff train clip shapes -o TOWERS                            # for the score, if it is wanted
    python experiments/text_pareto/run.py --prior PRIOR --towers TOWERS
    python experiments/text_pareto/run.py --prior PRIOR --captions train   # captions that were seen
    python experiments/text_pareto/run.py --smoke                  # what the tests run

For each strength of classifier-free guidance and each threshold one picture of each of n captions
is drawn, by the same noise everywhere, and scored: by the checker (all of the caption right), by
the cosine of picture and caption (CLIP), and by the Frechet and the kernel distance of frozen
features to those of n real pictures of the same captions. The floor is what other real pictures of
these captions have. (The lecture's curve; Saharia et al. 2022, figure 4.) Draws are kept in
--cache, so that a run that was killed goes on where it was.

Writes results.md, results.json, results.png and draws.png beside itself; of other captions than
those held out the names end in theirs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from random_models import random_models
from scored_draws import (
    THRESHOLDS,
    Judge,
    Size,
    distance_cells,
    drawn_captions,
    draws,
    kind_cells,
    markdown,
    parsed,
    share_cell,
    weights_of,
)

from smcdiff import load_clip, load_image_features, load_prior, shapes
from smcdiff.base._pixels import to_unit_range
from smcdiff.priors import DiffusionPrior
from smcdiff.results import plots
from smcdiff.store._text_denoiser import TextDenoiser
from smcdiff.store.clip import Clip
from smcdiff.store.image_features import ImageFeatures

HERE = Path(__file__).parent
STRENGTHS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)
SHOWN_STRENGTHS, NUM_SHOWN = (1.0, 3.0, 10.0), 8


def measure(
    prior: DiffusionPrior, clip: Clip | None, features: ImageFeatures,
    captions: tuple[str, ...], thresholds: list[str], size: Size, cache: Path,
) -> tuple[dict, dict[str, np.ndarray]]:  # fmt: skip
    """All numbers, and the draws that are shown."""
    text = prior.denoiser.reader.encoded(captions)
    prior.num_steps = size.steps
    pixels = prior.event_shape[0]
    judge = Judge.of(captions, clip, features, pixels, size.components)
    results = {"real": judge.real_scores(pixels, size.floors), "cells": []}
    print(*table_row("real pictures", "", results["real"], size.n), flush=True)
    shown = {}
    for name in thresholds:
        for strength in STRENGTHS:
            pictures = draws(prior, text, strength, name, size, cache)
            scores = judge.scores(pictures)
            results["cells"].append({"threshold": name, "strength": strength, **scores})
            print(*table_row(name, f"{strength:g}", scores, size.n), flush=True)
            if strength in SHOWN_STRENGTHS:
                shown[f"{name}, {strength:g}"] = pictures[:NUM_SHOWN]
    return results, shown


def table_row(name: str, strength: str, scores: dict, n: int) -> list[str]:
    """A row of the table; of the accuracy with its standard error."""
    clip = "-" if scores["clip"] is None else f"{scores['clip']:.3f}"
    return [name, strength, share_cell(scores["accuracy"], n), clip, *distance_cells(scores)]


def best(results: dict, name: str) -> dict:
    """The cell of a threshold with the highest accuracy, the weaker where two are as good."""
    cells = [cell for cell in results["cells"] if cell["threshold"] == name]
    return max(cells, key=lambda cell: (cell["accuracy"], -cell["strength"]))


def tables(results: dict, thresholds: list[str], n: int) -> list[str]:
    """Of all cells, and of the best strengths by kinds of captions."""
    rows = [table_row("real pictures (floor)", "", results["real"], n)]
    for cell in results["cells"]:
        rows.append(table_row(cell["threshold"], f"{cell['strength']:g}", cell, n))
    header = ["threshold", "strength", "caption right", "cosine (CLIP)", "Frechet", "kernel x 1000"]
    lines = [*markdown(header, rows), "", "## By kind of caption, at the strength that obeys best"]
    chosen = [("real pictures", "", results["real"])]
    chosen += [(name, f"{best(results, name)['strength']:g}", best(results, name))
               for name in thresholds]  # fmt: skip
    rows = []
    for name, strength, scores in chosen:
        rows.append([name, strength, *kind_cells(scores["by_kind"])])
    return [*lines, "", *markdown(["threshold", "strength", *shapes.FORMS], rows)]


def draw_curves(results: dict, thresholds: list[str], path: Path) -> None:
    """Accuracy, and the cosine where it was measured, against the Frechet distance."""
    names = {"accuracy": "share of captions obeyed", "clip": "cosine of picture and caption"}
    panels = [name for name in names if results["real"][name] is not None]
    figure = Figure(figsize=(5.6 * len(panels), 4.4), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in thresholds:
            cells = [cell for cell in results["cells"] if cell["threshold"] == name]
            x, y = ([cell[key] for cell in cells] for key in ("frechet", panel))
            axis.plot(x, y, "o-", markersize=4, label=name)
            for cell, place in zip(cells, zip(x, y, strict=True), strict=True):
                axis.annotate(f"{cell['strength']:g}", place, (3, 3), fontsize=7,
                              textcoords="offset points")  # fmt: skip
        real = results["real"]
        axis.plot(real["frechet"], real[panel], "k*", markersize=10, label="real pictures")
        axis.axvline(real["frechet"], color="k", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel="Frechet distance to real pictures", ylabel=names[panel])
        axis.legend(fontsize=8, title="threshold")
    figure.savefig(path, dpi=150)


def report(
    results: dict, shown: dict[str, np.ndarray], captions: tuple[str, ...], about: list[str],
    thresholds: list[str], size: Size, output: Path, stem: str,
) -> None:  # fmt: skip
    """Writes the files."""
    output.mkdir(parents=True, exist_ok=True)
    pictures = f"{stem.replace('results', 'draws')}.png"
    draw_curves(results, thresholds, output / f"{stem}.png")
    sheet = to_unit_range(np.concatenate(list(shown.values())))
    plots.save_captioned(sheet, captions[:NUM_SHOWN], output / pictures, scale=3)
    text = [
        *about,
        "",
        f"{size.n} captions, a picture of each, {size.steps} steps, by the same noise in every row."
        " *Caption right*: by the checker, all of the caption, with its standard error. *Frechet*:"
        f" of frozen features (EfficientNet-Lite0, 96 x 96, {size.components} principal"
        f" components) to those of {size.n} real pictures of the same captions, and of no other"
        " number: compare it with the floor alone, which is the mean over"
        f" {size.floors} further sets of real pictures of these captions. The numbers on the curves"
        " are strengths.",
        "",
        f"![accuracy against distance]({stem}.png)",
        "",
        *tables(results, thresholds, size.n),
        "",
        "## Draws",
        "",
        f"A column each caption; rows: {'; '.join(shown)}.",
        "",
        f"![draws]({pictures})",
    ]
    (output / f"{stem}.md").write_text("\n".join(text).rstrip() + "\n")
    everything = {"size": dataclasses.asdict(size), **results}
    (output / f"{stem}.json").write_text(json.dumps(everything, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", type=Path, help="folder of `smcdiff train text shapes`")
    parser.add_argument("--towers", type=Path, help="folder of `smcdiff train clip shapes`")
    parts = [part.value for part in shapes.Split]
    parser.add_argument("--captions", choices=parts, default=shapes.Split.HELD_OUT.value)
    parser.add_argument("--thresholds", nargs="+", choices=list(THRESHOLDS), default=THRESHOLDS)
    parser.add_argument("-n", type=int, default=Size.n, help="captions")
    parser.add_argument("--steps", type=int, default=Size.steps)
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="folder of draws")
    options = parsed(parser, HERE, arguments)
    if not options.smoke and options.prior is None:
        parser.error("give --prior FOLDER, of `smcdiff train text shapes -o FOLDER`")
    if options.smoke:
        size = Size(n=6, steps=2, chunk=4, components=4, floors=2)
        with tempfile.TemporaryDirectory() as temporary:
            options.cache = Path(temporary)
            captions = drawn_captions(size.n, shapes.Split(options.captions))
            run(options, size, *random_models(captions))
    else:
        towers = None if options.towers is None else load_clip(options.towers)
        models = load_prior(options.prior), towers, load_image_features()
        if not isinstance(models[0].denoiser, TextDenoiser):
            parser.error(f"{options.prior} is no prior of captions; give one of `train text`")
        run(options, Size(options.n, options.steps), *models)


def run(
    options: argparse.Namespace, size: Size, prior: DiffusionPrior, clip: Clip | None,
    features: ImageFeatures,
) -> None:  # fmt: skip
    """Measures and writes."""
    part, thresholds = shapes.Split(options.captions), list(options.thresholds)
    captions = drawn_captions(size.n, part)
    cache = options.cache / part.value
    size.claim(cache, {"prior": weights_of(options.prior)})
    results, shown = measure(prior, clip, features, captions, thresholds, size, cache)
    about = ["# Strength of guidance: captions obeyed against distance", "",
             f"Written by `{options.command}`; captions: {part.value}."]  # fmt: skip
    stem = "results" if part is shapes.Split.HELD_OUT else f"results-{part.value}"
    report(results, shown, captions, about, thresholds, size, options.output, stem)


if __name__ == "__main__":
    main()
