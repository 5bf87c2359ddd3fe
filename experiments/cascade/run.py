"""Cascades of captioned shapes: what upsampling keeps of captions, by the noise on small pictures.

    smcdiff train text shapes -o BASE                              # first; hours
    smcdiff train upsampler shapes -o UPSAMPLER                    # hours, too
    python experiments/cascade/run.py --chain BASE UPSAMPLER
    python experiments/cascade/run.py --chain BASE UP --chain BASE16 UP32 UP64    # two of them
    python experiments/cascade/run.py --smoke                      # what the tests run

A base draws a small picture of each of n held-out captions, and upsamplers raise it: without noise
on it, with Gaussian and with truncated conditioning augmentation of several log-SNRs. Beside it:
true small pictures raised by the same upsamplers, which is their own error; the base's draws
enlarged bilinearly, which is no upsampler at all; and real pictures. All are scored by the checker
and by the Frechet and kernel distances of frozen features to n real pictures of the high
resolution. Draws are kept in --cache, so that a run that was killed goes on where it was.

Writes results.md, results.json, results.png and draws.png (of further chains draws-2.png, ...)
beside itself.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from smcdiff import Cascade, cascades, load_image_features, load_prior, shapes
from smcdiff.base._pixels import to_bytes, to_unit_range
from smcdiff.networks._upsampling import enlarged
from smcdiff.priors import DiffusionPrior
from smcdiff.results import plots
from smcdiff.store._text_denoiser import TextDenoiser
from smcdiff.store._upsampling_denoiser import UpsamplingDenoiser
from smcdiff.store.image_features import ImageFeatures

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "text_pareto"))
from random_models import random_models, random_upsampler  # noqa: E402
from scored_draws import (  # noqa: E402
    THRESHOLDS,
    Judge,
    Size,
    checked,
    distance_cells,
    drawn_captions,
    draws,
    in_chunks,
    kind_cells,
    markdown,
    mistakes,
    parsed,
    real_pictures,
    share_cell,
    weights_of,
)

LOG_SNRS = (6.0, 4.0, 2.0, 0.0)
THRESHOLD = "static"
"""Of the upsamplers, but in the rows that compare thresholds."""
RAISE_KEY, TRUNCATED_KEY = jax.random.key(211), jax.random.key(212)
"""Keys that no training uses."""
NUM_SHOWN = 8
BASE, TRUE = "draws of the base", "true pictures"


class Chain(NamedTuple):
    """The stages of a cascade.

    Attributes:
        base: prior of captions.
        upsamplers: of each further resolution.
        weights: hashes of all.
    """

    base: DiffusionPrior
    upsamplers: tuple[DiffusionPrior, ...]
    weights: dict[str, str]

    @classmethod
    def of(cls, base: DiffusionPrior, upsamplers: list[DiffusionPrior], folders: list) -> Chain:
        """Of priors and their folders, None of random weights.

        Raises:
            ValueError: stages that do not fit each other.
        """
        shape = base.event_shape
        if type(base.denoiser) is not TextDenoiser or not upsamplers:
            raise ValueError("a chain is a prior of `smcdiff train text`, and upsamplers after it")
        for stage, folder in zip(upsamplers, folders[1:], strict=True):
            is_upsampler = isinstance(stage.denoiser, UpsamplingDenoiser)
            low = stage.denoiser.low.image.shape if is_upsampler else None
            if low != shape:
                raise ValueError(
                    f"{folder} raises {low}, but the stage below draws {shape}; give folders of"
                    " `smcdiff train upsampler`, from the lowest resolution to the highest"
                )
            shape = stage.event_shape
        weights = {f"stage {i}": weights_of(folder) for i, folder in enumerate(folders)}
        return cls(base, tuple(upsamplers), weights)

    @property
    def sizes(self) -> list[int]:
        """Pixels a side, from below."""
        return [stage.event_shape[0] for stage in (self.base, *self.upsamplers)]

    @property
    def name(self) -> str:
        """By its sizes."""
        return " -> ".join(map(str, self.sizes))

    def cascade(self, augmentation, threshold: str) -> Cascade:
        """With a threshold of its upsamplers."""
        stages = []
        for stage in self.upsamplers:
            stage = copy.copy(stage)
            stage.threshold = THRESHOLDS[threshold]
            stages.append(stage)
        return Cascade(self.base, tuple(stages), augmentation)


class Row(NamedTuple):
    """Pictures of the high resolution, one of each caption.

    Attributes:
        of: what was raised.
        how: by what.
        noise: on what was raised.
        log_snr: of that noise, or None.
        threshold: of the upsamplers, or None.
    """

    of: str
    how: str
    noise: str = "none"
    log_snr: float | None = None
    threshold: str | None = None

    @classmethod
    def raised(cls, of: str, augmentation, threshold: str = THRESHOLD) -> Row:
        """By the upsamplers."""
        if augmentation is None:
            return cls(of, "upsampled", threshold=threshold)
        noise = type(augmentation).__name__.lower()
        return cls(of, "upsampled", noise, augmentation.log_snr, threshold)

    @property
    def augmentation(self):
        """Of the cascade."""
        kinds = {"gaussian": cascades.Gaussian, "truncated": cascades.Truncated}
        return None if self.noise == "none" else kinds[self.noise](self.log_snr)

    @property
    def stem(self) -> str:
        """Of its files."""
        level = "" if self.log_snr is None else f"{self.log_snr:g}"
        words = (self.of.split()[0], self.noise + level, self.threshold)
        return "-".join(str(word).replace(" ", "_") for word in words)

    @property
    def label(self) -> str:
        """In the legend of a picture."""
        level = "" if self.log_snr is None else f" {self.log_snr:g}"
        noise = "" if self.how != "upsampled" else f", noise: {self.noise}{level}"
        return f"{self.of}, {self.how}{noise}"


def all_rows(options: argparse.Namespace) -> list[Row]:
    """What is measured; thresholds are compared at the level in the middle."""
    gaussian = [cascades.Gaussian(level) for level in options.log_snrs]
    truncated = [cascades.Truncated(level) for level in options.log_snrs]
    middle = cascades.Gaussian(middle_of(options.log_snrs))
    return [
        *(Row(of, "enlarged bilinearly") for of in (TRUE, BASE)),
        *(Row.raised(TRUE, noise) for noise in (None, *gaussian)),
        *(Row.raised(BASE, noise) for noise in (None, *gaussian, *truncated)),
        *(Row.raised(BASE, middle, name) for name in options.compared if name != THRESHOLD),
    ]


def middle_of(log_snrs: list[float]) -> float:
    """The level that is shown."""
    return log_snrs[len(log_snrs) // 2]


@jax.jit
def sample_cascade(keys, cascade: Cascade, text, strengths, threshold):
    """Draws of captions through all stages."""
    return jax.vmap(lambda key, *asked: cascade.given(*asked, threshold).sample(key))(
        keys, text, strengths
    )


def pictures_of(
    row: Row, chain: Chain, low: dict[str, np.ndarray], text, size: Size, cache: Path, options
) -> np.ndarray:  # fmt: skip
    """The pictures of a row as bytes, out of the cache or into it."""
    if row.threshold is None:
        side = chain.sizes[-1]
        return to_bytes(np.asarray(enlarged(jnp.asarray(to_unit_range(low[row.of])), side, side)))
    cascade = chain.cascade(row.augmentation, row.threshold)

    def upsampled(chosen):
        key = jax.random.fold_in(RAISE_KEY, int(chosen[0]))
        return cascade.upsample(key, jnp.asarray(to_unit_range(low[row.of][chosen])), num_axes=1)

    keys = jax.random.split(TRUNCATED_KEY, size.n)

    def truncated(chosen):
        of_chunk = jax.tree.map(lambda leaf: leaf[chosen], text)
        strengths = jnp.full(len(chosen), options.strength)
        asked = of_chunk, strengths, THRESHOLDS[options.threshold]
        return sample_cascade(keys[chosen], cascade, *asked)

    return in_chunks(truncated if row.noise == "truncated" else upsampled, row.stem, size, cache)


def measure(
    chain: Chain, captions: tuple[str, ...], features: ImageFeatures, size: Size, options
) -> tuple[dict, dict[str, np.ndarray]]:  # fmt: skip
    """All numbers of a chain, and the pictures that are shown."""
    for stage in (chain.base, *chain.upsamplers):
        stage.num_steps = size.steps
    cache = options.cache / chain.name.replace(" -> ", "-")
    given = {"strength": f"{options.strength:g}", "threshold": options.threshold}
    size.claim(cache, chain.weights | given)
    pixels, text = chain.sizes[-1], chain.base.denoiser.reader.encoded(captions)
    low = {
        BASE: draws(chain.base, text, options.strength, options.threshold, size, cache),
        # Of other scenes than the reference and the floors.
        TRUE: real_pictures(captions, 1 + size.floors, chain.sizes[0]),
    }
    base_right = np.array([not wrong for wrong in mistakes(low[BASE], captions)])
    judge = Judge.of(captions, None, features, pixels, size.components)
    results = {
        "name": chain.name, "low": {of: checked(low[of], captions) for of in low},
        "real": judge.real_scores(pixels, size.floors), "rows": [],
    }  # fmt: skip
    level, shown = middle_of(options.log_snrs), {}
    for row in all_rows(options):
        found = pictures_of(row, chain, low, text, size, cache, options)
        scores = judge.scores(found)
        if row.of == BASE and row.noise != "truncated" and base_right.any():
            still = np.array([not wrong for wrong in mistakes(found, captions)])
            scores["kept"] = float(still[base_right].mean())
        results["rows"].append({**row._asdict(), **scores})
        print(*table_cells(results["rows"][-1], size.n), flush=True)
        if row.threshold in (None, THRESHOLD) and row.log_snr in (None, level):
            shown[row.label] = found[:NUM_SHOWN]
    small = np.repeat(np.repeat(low[BASE][:NUM_SHOWN], pixels // chain.sizes[0], 1),
                      pixels // chain.sizes[0], 2)  # fmt: skip
    return results, {f"{BASE}, {chain.sizes[0]} x {chain.sizes[0]}": small, **shown}


def table_cells(row: dict, n: int) -> list[str]:
    """Of a row of pictures of the high resolution."""
    level = "-" if row["log_snr"] is None else f"{row['log_snr']:g}"
    kept = f"{row['kept']:.1%}" if "kept" in row else "-"
    cells = [row["of"], row["how"], row["noise"], level, row["threshold"] or "-"]
    cells += [share_cell(row["accuracy"], n), kept]
    return [*cells, *kind_cells(row["by_kind"]), *distance_cells(row)]


def tables(results: dict, size: Size) -> list[str]:
    """The sections of a chain."""
    sides = results["name"].split(" -> ")
    header = ["pictures", "how", "noise", "log-SNR", "threshold", "right", "kept", *shapes.FORMS]
    real = Row("real pictures (floor)", "-", "-")._asdict() | results["real"]
    rows = [table_cells(row, size.n) for row in (real, *results["rows"])]
    small = [
        [of, share_cell(scores["accuracy"], size.n), *kind_cells(scores["by_kind"])]
        for of, scores in results["low"].items()
    ]
    return [
        f"## {results['name']}", "", f"Small pictures, {sides[0]} x {sides[0]}:", "",
        *markdown(["pictures", "right", *shapes.FORMS], small), "",
        f"Pictures of {sides[-1]} x {sides[-1]}:", "",
        *markdown([*header, "Frechet", "kernel x 1000"], rows), "",
    ]  # fmt: skip


def draw_curves(every: list[dict], path: Path) -> None:
    """Accuracy and Frechet distance against the log-SNR, a row of panels for each chain."""
    figure = Figure(figsize=(11.0, 4.2 * len(every)), layout="constrained")
    grid = figure.subplots(len(every), 2, squeeze=False)
    names = {"accuracy": "share of captions obeyed", "frechet": "Frechet distance"}
    for axes, results in zip(grid, every, strict=True):
        plain = {row["of"]: row for row in results["rows"] if row["threshold"] is None}
        levels = [row for row in results["rows"] if row["threshold"] == THRESHOLD]
        for axis, (name, label) in zip(axes, names.items(), strict=True):
            for of, noise in ((TRUE, "gaussian"), (BASE, "gaussian"), (BASE, "truncated")):
                line = [r for r in levels if (r["of"], r["noise"]) == (of, noise)]
                x, y = ([row[key] for row in line] for key in ("log_snr", name))
                axis.plot(x, y, "o-", markersize=4, label=f"{of}, {noise}")
            for of, colour in ((TRUE, "C0"), (BASE, "C1")):
                none = next(r for r in levels if (r["of"], r["noise"]) == (of, "none"))
                axis.axhline(none[name], color=colour, linestyle="--", label=f"{of}, no noise")
                axis.axhline(plain[of][name], color=colour, linestyle=":", label=f"{of}, bilinear")
            axis.axhline(results["real"][name], color="k", linewidth=0.8, label="real pictures")
            axis.set(xlabel="log-SNR of the noise on the low resolution", ylabel=label)
        axes[0].axhline(results["low"][BASE]["accuracy"], color="C3", label=f"{BASE}, small")
        axes[0].set_title(results["name"])
        axes[0].legend(fontsize=7)
        axes[1].set_yscale("log")
    figure.savefig(path, dpi=120)


def report(
    found: list[tuple[dict, dict]], captions: tuple[str, ...], size: Size, options
) -> None:  # fmt: skip
    """Writes the files."""
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    every = [results for results, _ in found]
    draw_curves(every, output / "results.png")
    lines = [
        "# Cascades of captioned shapes", "", f"Written by `{options.command}`", "",
        f"{size.n} held-out captions, half of them of one group, a picture of each, {size.steps}"
        f" steps of each stage. The base draws at strength {options.strength:g}, threshold"
        f" {options.threshold}. *Right*: by the checker, all of the caption, with its standard"
        " error, and by the number of objects or for two groups. *Kept*: of the base's draws that"
        " are right when small, how many still are. *True pictures* are small pictures of the"
        " renderer. *Noise*: on what an upsampler is given; truncated ends the base's steps at the"
        " level; all else raises the same small pictures, kept in 8 bits. *Frechet*: of frozen"
        f" features ({size.components} principal components) to those"
        f" of {size.n} real pictures, and of no other number: compare it with the floor alone,"
        f" the mean over {size.floors} further sets of real pictures.", "",
        "![by log-SNR](results.png)", "",
    ]  # fmt: skip
    for number, (results, shown) in enumerate(found, 1):
        name = "draws.png" if number == 1 else f"draws-{number}.png"
        sheet = to_unit_range(np.concatenate(list(shown.values())))
        plots.save_captioned(sheet, captions[:NUM_SHOWN], output / name, scale=2)
        lines += [*tables(results, size), f"A column each caption; rows: {'; '.join(shown)}.", ""]
        lines += [f"![draws]({name})", ""]
    (output / "results.md").write_text("\n".join(lines).rstrip() + "\n")
    content = {"size": dataclasses.asdict(size), "captions": captions, "chains": every}
    (output / "results.json").write_text(json.dumps(content, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chain", nargs="+", type=Path, action="append", metavar="FOLDER",
                        help="a base of `smcdiff train text shapes`, then upsamplers from below;"
                        " several times for several cascades")  # fmt: skip
    parser.add_argument("--strength", type=float, default=3.0, help="of guidance, of the base")
    parser.add_argument("--threshold", choices=list(THRESHOLDS), default="static", help="its own")
    parser.add_argument("--log-snrs", nargs="+", type=float, default=LOG_SNRS)
    parser.add_argument("--compared", nargs="+", choices=list(THRESHOLDS), default=THRESHOLDS,
                        help="thresholds of the upsamplers")  # fmt: skip
    parser.add_argument("-n", type=int, default=256, help="captions")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="folder of draws")
    options = parsed(parser, HERE, arguments)
    if options.smoke:
        size = Size(n=6, steps=2, chunk=4, components=4, floors=2)
        options.log_snrs, options.compared = (2.0,), ("none",)
        captions = drawn_captions(size.n, shapes.Split.HELD_OUT)
        with tempfile.TemporaryDirectory() as folder:
            options.cache = Path(folder)
            base, _, features = random_models(captions)
            chains = [Chain.of(base, [random_upsampler()], [None, None])]
            found = [measure(chain, captions, features, size, options) for chain in chains]
    elif options.chain is None:
        parser.error("give --chain BASE UPSAMPLER, folders of `smcdiff train text`, `upsampler`")
    else:
        size, features = Size(options.n, options.steps), load_image_features()
        captions = drawn_captions(size.n, shapes.Split.HELD_OUT)
        try:
            chains = [Chain.of(load_prior(first), [load_prior(folder) for folder in others],
                               [first, *others]) for first, *others in options.chain]  # fmt: skip
        except ValueError as error:
            parser.error(str(error))
        found = [measure(chain, captions, features, size, options) for chain in chains]
    report(found, captions, size, options)


if __name__ == "__main__":
    main()
