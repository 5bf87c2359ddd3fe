"""The worked examples of the docs: runs the code of each page, and draws what it found.

    python experiments/worked_examples/run.py              # all, some minutes on two cores
    python experiments/worked_examples/run.py poisson      # one; the others' results are kept
    python experiments/worked_examples/run.py --smoke      # what the tests run

The code blocks of docs/example-NAME.md are the only source of what runs here. A page leaves ``y``,
``truth`` (site -> value) and its posteriors; this writes NAME.png, results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from smcdiff import Draws
from smcdiff.results.plots import show_image

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
DRAWS = 4
SMOKE = {
    "num_particles": 2, "num_chains": 2, "num_steps": 5, "num_warmup": 1, "num_samples": 4,
}  # fmt: skip
RUNS = {
    "separation": {"posterior": "the sum"},
    "poisson": {"exact": "Poisson", "chain": "Poisson, chain", "approximate": "Gaussian"},
    "outliers": {"gaussian": "Gaussian", "robust": "Student-t", "chain": "Student-t, chain"},
    "deblurring": {"posterior": "unknown blur"},
    "operator": {},
}
"""Example -> the names of the page's posteriors, and what the picture calls them."""


def run_page(name: str, smoke: bool) -> dict:
    """The names that the code of a page leaves; it runs in order, as one program."""
    page = DOCS / f"example-{name}.md"
    source = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))
    if smoke and "load_prior(" in source:  # an analytic prior takes seconds as it is
        for option, size in SMOKE.items():
            source = re.sub(rf"\b{option}=\d+", f"{option}={size}", source)
    names: dict = {}
    exec(compile(source, page.name, "exec"), names)
    return names


def numbers(posterior, site: str, truth) -> str:
    """A row's cells: errors and intervals of a picture, or the moments of a parameter."""
    truth, mean = np.asarray(truth), np.asarray(posterior.mean()[site])
    if truth.ndim == 0:
        return f"{mean:.3f} +- {posterior.std()[site]:.3f} (truth {truth:.3g}) | | | |"
    table, sd = posterior.summary()[site], posterior.std()[site]
    inside = (table["5.0%"] <= truth) & (truth <= table["95.0%"])
    open_ = sd > 0.1
    cover = f"{inside[open_].mean():.2f} of {open_.sum()}" if open_.any() else "none"
    return (
        f"| {np.sqrt(np.mean((mean - truth) ** 2)):.3f} | {np.sqrt(np.mean(sd**2)):.3f} |"
        f" {inside.mean():.2f} | {cover} |"
    )


def compared(names: dict) -> list[str]:
    """The lines of a page that compares models: their evidence, and the exact one."""
    comparison = names["comparison"]
    told = comparison.log_evidence, comparison.log_evidence_se
    return [
        f"| operator | width {name} | | {names['posteriors'][name].attrs['seconds']:.0f} |"
        f" {value:.2f} +- {error:.2f} (exact {names['known'][name]:.2f}) |"
        f" probability {comparison.probabilities[name]:.2g} | | | | |"
        for name, value, error in zip(comparison.names, *told, strict=True)
    ]


def comparison_picture(names: dict) -> Figure:
    """The signal under the best model, and the evidence of all of them."""
    figure = Figure(figsize=(9.0, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    best = names["posteriors"][names["comparison"].names[0]]
    table, places = best.summary()["x"], np.arange(len(names["y"]))
    left.fill_between(places, table["5.0%"], table["95.0%"], alpha=0.3, label="90 % interval")
    left.plot(places, table["mean"], label="posterior mean")
    left.plot(places, names["truth"]["x"], "k--", label="truth")
    left.plot(places, names["y"], "k.", label="y")
    left.legend(fontsize=7)
    left.set_title(f"the signal, width {names['comparison'].names[0]}", fontsize=9)
    order = list(names["known"])
    index = [names["comparison"].names.index(name) for name in order]
    value, error = (
        np.asarray(a)[index]
        for a in (names["comparison"].log_evidence, names["comparison"].log_evidence_se)
    )
    right.errorbar(order, value, 2 * error, fmt="o", capsize=3, label="smcdiff, two errors")
    right.plot(order, list(names["known"].values()), "kx", label="exact")
    right.set_xlabel("width of the blur", fontsize=8)
    right.set_title("log evidence, nat", fontsize=9)
    right.legend(fontsize=7)
    return figure


def of_chains(posterior) -> str:
    """What the chains of a run tell of it: their evidence, or whether they agree."""
    if isinstance(posterior, Draws):
        std = posterior.std()
        worst = (
            (site, np.quantile(told["r_hat"][(std[site] > 0.1) | (std[site].ndim == 0)], 0.95))
            for site, told in posterior.summary().items()
        )
        return "R-hat " + ", ".join(f"{site} {value:.2f}" for site, value in worst)
    evidence = np.asarray(posterior.log_evidence)
    return f"{evidence.mean():.1f}, sd {evidence.std(ddof=1):.2g} of {evidence.size}"


def rows(name: str, names: dict) -> list[str]:
    """The example's lines of the table."""
    if "comparison" in names:
        return compared(names)
    lines = []
    for run in RUNS[name]:
        posterior = names[run]
        told = of_chains(posterior)
        for site, truth in names["truth"].items():
            lines.append(
                f"| {name} | {run} | {site} | {posterior.attrs['seconds']:.0f} | {told} |"
                f" {numbers(posterior, site, truth)}"
            )
            told = ""
    return lines


def data_as_picture(names: dict, shape: tuple[int, ...]) -> np.ndarray:
    """y, of a page that sees some of the pixels (``seen``) with NaN where nothing was."""
    y = np.asarray(names["y"], float)
    if "seen" not in names:
        return y
    image = np.full(shape, np.nan)
    image[names["seen"]] = y
    return image


def picture(name: str, names: dict) -> Figure:
    """A row for each run and each site that is a picture: data, truth, mean, sd and draws."""
    if "comparison" in names:
        return comparison_picture(names)
    truths = {site: np.asarray(value) for site, value in names["truth"].items()}
    shown = [(run, site) for run in RUNS[name] for site in truths if truths[site].ndim > 1]
    figure = Figure(figsize=(1.35 * (DRAWS + 4), 1.55 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), DRAWS + 4, squeeze=False)
    for axis, (run, site) in zip(axes, shown, strict=True):
        posterior, label = names[run], RUNS[name][run]
        draws = np.asarray(posterior.resample(jax.random.key(9), DRAWS)[site])
        y = data_as_picture(names, truths[site].shape)
        show_image(axis[0], y, f"y; {label}", vmin=np.nanmin(y), vmax=np.nanmax(y))
        show_image(axis[1], truths[site], f"truth: {site}")
        show_image(axis[2], posterior.mean()[site], "posterior mean")
        show_image(axis[3], posterior.std()[site], "sd, 0 to 1", vmin=0.0, vmax=1.0)
        for one, draw in zip(axis[4:], draws, strict=True):
            show_image(one, draw, "a draw")
    return figure


def report(found: dict[str, list[str]], command: str) -> str:
    """The text of results.md."""
    return "\n".join(
        ["# Worked examples", "", f"Written by `{command}`.", "",
         "RMSE is that of the posterior mean, *sd* the root mean square of the pixels' posterior",
         "standard deviations, *90 %* the share of truths in the central 90 % intervals of all",
         "pixels, and of those whose posterior standard deviation is above 0.1; *log evidence* is",
         "the mean over chains, their standard deviation and their number, or of Markov chains",
         "their R-hat: of a picture 95 % of the open pixels are below it. Seconds are those of",
         "the run, compiling included, on two cores that other work shared.", "",
         "| example | run | site | s | log evidence, nat; R-hat | parameter | RMSE | sd | 90 % |"
         " of open pixels |",
         "|---|---|---|---|---|---|---|---|---|---|",
         *(line for name in RUNS for line in found.get(name, ())), ""]
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Runs the pages, and writes the pictures and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(RUNS)}; none is all")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    kept = options.output / "results.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for name in options.names or RUNS:
        names = run_page(name, options.smoke)
        picture(name, names).savefig(options.output / f"{name}.png", dpi=110)
        found[name] = rows(name, names)
        print("\n".join(found[name]), flush=True)
    kept.write_text(json.dumps(found, indent=1) + "\n")
    command = "python experiments/worked_examples/run.py" + (" --smoke" if options.smoke else "")
    (options.output / "results.md").write_text(report(found, command))


if __name__ == "__main__":
    main()
