"""What goes wrong in draws of captions: kinds of mistakes, and the worst captions, shown.

    python experiments/text_pareto/run.py --prior PRIOR       # first; or give --strength here
    python experiments/failures/run.py --prior PRIOR
    python experiments/failures/run.py --prior PRIOR --strength 3 --threshold static
    python experiments/failures/run.py --smoke                # what the tests run

Takes the draws of held-out captions at that strength and threshold of experiments/text_pareto that
obey most (or draws them), and has the checker say what is wrong with each. Of captions whose draw
was wrong it draws k more, by other noise, and shows those that are obeyed least. The last part
needs no network: what thresholds make of a white background.

Writes results.md, results.json, worst.png and white.png beside itself. Draws are kept in --cache,
which may be that of text_pareto, and in --more.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import load_prior, shapes, thresholding
from smcdiff.base._pixels import to_unit_range
from smcdiff.priors import DiffusionPrior
from smcdiff.results import plots
from smcdiff.shapes.grammar import MAX_COUNT
from smcdiff.store._text_denoiser import TextDenoiser

HERE = Path(__file__).parent
PARETO = HERE.parent / "text_pareto"
sys.path.insert(0, str(PARETO))
from random_models import random_models  # noqa: E402
from scored_draws import (  # noqa: E402
    MISTAKES,
    THRESHOLDS,
    UNREADABLE,
    Size,
    drawn_captions,
    draws,
    in_chunks,
    markdown,
    mistakes,
    parsed,
    sample,
    weights_of,
)

PART = shapes.Split.HELD_OUT
MORE_KEY = jax.random.key(221)
"""Of further draws; no training uses it."""
NUM_WORST, NUM_ROWS = 16, 4
WHITE_CAPTIONS = ("a red circle", "two blue squares", "a green triangle above a cyan square")
ON_WHITE = {
    "static": thresholding.Static(),
    "dynamic": thresholding.Dynamic(0.995),
    "dynamic about white": thresholding.Dynamic(0.995, background=1.0),
}
OVERSHOOTS = (1.0, 1.2, 1.5)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is drawn.

    Attributes:
        strength: of guidance.
        threshold: by its name.
        candidates: captions that are drawn again.
        k: draws of each.
    """

    strength: float
    threshold: str
    candidates: int
    k: int


def error_rows(wrong: list[tuple[str, ...]], captions: tuple[str, ...]) -> list[list[str]]:
    """Shares of draws with each mistake, by kind of caption; one draw may have several."""
    by_kind = collections.defaultdict(list)
    for caption, found in zip(captions, wrong, strict=True):
        by_kind[shapes.parse(caption).form].append(found)
    rows = []
    for kind, several in [*((k, by_kind[k]) for k in shapes.FORMS), ("all", wrong)]:
        if several:
            shares = [np.mean([not found for found in several])]
            shares += [np.mean([name in found for found in several]) for name in MISTAKES]
            rows.append([kind, f"{len(several)}", *(f"{share:.1%}" for share in shares)])
    return rows


def count_rows(pictures: np.ndarray, captions: tuple[str, ...]) -> list[list[str]]:
    """Of readable pictures: how many objects are seen where so many are asked for."""
    counts = np.zeros((MAX_COUNT + 1, MAX_COUNT + 2), int)
    for image, caption in zip(to_unit_range(pictures), captions, strict=True):
        if (scene := shapes.read(image)) is not None:
            seen = min(len(scene.objects), MAX_COUNT + 1)
            counts[shapes.parse(caption).num_objects, seen] += 1
    return [[f"{asked}", *map(str, row)] for asked, row in enumerate(counts) if row.any()]


def reading(image: np.ndarray, caption: str) -> str:
    """What the checker sees in a picture that is wrong."""
    scene = shapes.read(image)
    if scene is None:
        return UNREADABLE
    is_order = scene.mistakes(shapes.parse(caption)) == ("relation",)
    return f"{scene}, in another order" if is_order else str(scene)


def worst_captions(
    prior: DiffusionPrior, wrong: list[tuple[str, ...]], captions: tuple[str, ...],
    asked: Asked, size: Size, cache: Path,
) -> tuple[list[dict], np.ndarray]:  # fmt: skip
    """Of captions whose draw was wrong, drawn k times more: the least obeyed, and their draws."""
    failed = [caption for caption, found in zip(captions, wrong, strict=True) if found]
    candidates = list(dict.fromkeys(failed))[: asked.candidates]
    if not candidates:
        return [], np.empty(0)
    size = dataclasses.replace(size, n=len(candidates) * asked.k)
    size.claim(cache, {"captions": json.dumps(candidates), "k": f"{asked.k}"})
    text = prior.denoiser.reader.encoded(candidates)
    keys = jax.random.split(MORE_KEY, size.n)

    def make(chosen):
        of_chunk = jax.tree.map(lambda leaf: leaf[chosen // asked.k], text)
        strengths = jnp.full(len(chosen), asked.strength)
        return sample(keys[chosen], prior, of_chunk, strengths, THRESHOLDS[asked.threshold])

    pictures = in_chunks(make, "more", size, cache)
    pictures = pictures.reshape(len(candidates), asked.k, *pictures.shape[1:])
    records = []
    for place, (caption, several) in enumerate(zip(candidates, pictures, strict=True)):
        found = mistakes(several, [caption] * asked.k)
        readings = collections.Counter(
            reading(image, caption)
            for image, mistaken in zip(to_unit_range(several), found, strict=True) if mistaken
        )  # fmt: skip
        right = sum(not mistaken for mistaken in found)
        records.append({"caption": caption, "right": right, "seen": readings.most_common(),
                        "place": place})  # fmt: skip
    worst = sorted(records, key=lambda record: record["right"])[:NUM_WORST]
    return worst, pictures[[record["place"] for record in worst]]


def worst_section(worst: list[dict], shown: np.ndarray, asked: Asked, output: Path) -> list[str]:
    """The table of the worst captions, and their picture."""
    if not worst:
        return ["Every draw is right: there is nothing to show."]
    rows = []
    for record in worst:
        seen = "; ".join(f"{what} ({number})" for what, number in record["seen"][:3])
        rows.append([record["caption"], f"{record['right']} of {asked.k}", seen])
    sheet = np.concatenate([shown[:, row] for row in range(min(NUM_ROWS, asked.k))])
    columns = [record["caption"] for record in worst]
    plots.save_captioned(to_unit_range(sheet), columns, output / "worst.png", scale=3)
    return [
        *markdown(["caption", "right", "what the checker saw instead (how often)"], rows), "",
        f"The first {min(NUM_ROWS, asked.k)} of these draws of each:", "",
        "![the worst captions](worst.png)",
    ]  # fmt: skip


def on_white(output: Path) -> list[list[str]]:
    """What thresholds make of pictures on white whose objects overshoot; writes the picture."""
    true = shapes.render_batch(WHITE_CAPTIONS, jax.random.key(3), background=shapes.WHITE)
    rows, sheet = [], []
    for overshoot in OVERSHOOTS:
        seen = [jax.vmap(limit)(1.0 + overshoot * (true - 1.0)) for limit in ON_WHITE.values()]
        sheet += seen
        levels = [f"{float(jnp.median(images)):.2f}" for images in seen]
        rows.append([f"{overshoot:g}", *levels])
    plots.save_captioned(np.concatenate(sheet), WHITE_CAPTIONS, output / "white.png", scale=3)
    return rows


def white_section(output: Path) -> list[str]:
    """Without a network."""
    rows = on_white(output)
    order = "; ".join(f"{o:g}, {name}" for o in OVERSHOOTS for name in ON_WHITE)
    return [
        "## Dynamic thresholding on white", "",
        "True pictures on a white background, all distances from white times a factor, as guidance"
        " drives objects beyond the range; then a threshold. The level of the background, which is"
        " 1 where it is white:", "",
        *markdown(["factor", *ON_WHITE], rows), "",
        f"Rows: {order}.", "",
        "![thresholds on white](white.png)",
    ]  # fmt: skip


def run(prior: DiffusionPrior, weights: str, asked: Asked, size: Size, options) -> None:
    """Measures and writes."""
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    prior.num_steps = size.steps
    captions = drawn_captions(size.n, PART)
    size.claim(options.cache / PART.value, {"prior": weights})
    text = prior.denoiser.reader.encoded(captions)
    cache = options.cache / PART.value
    pictures = draws(prior, text, asked.strength, asked.threshold, size, cache)
    wrong = mistakes(pictures, captions)
    more = options.more / f"{asked.threshold.replace(' ', '_')}-{asked.strength:g}-{weights[:8]}"
    worst, shown = worst_captions(prior, wrong, captions, asked, size, more)
    errors, counts = error_rows(wrong, captions), count_rows(pictures, captions)
    seen = [*map(str, range(MAX_COUNT + 1)), f"{MAX_COUNT + 1} or more"]
    lines = [
        "# What goes wrong", "", f"Written by `{options.command}`", "",
        f"Held-out captions at strength {asked.strength:g}, threshold {asked.threshold},"
        f" {size.steps} steps.", "",
        "## Kinds of mistakes", "",
        f"{size.n} captions, a draw of each: shares of all draws. A draw may have several mistakes."
        " *Unreadable*: something in it is of no colour or shape of the grammar. *Count*: too many"
        " or too few objects, or of the groups. *Colour*, *shape*: an object of one that the"
        " caption does not name. *Binding*: an object with the colour of one group and the shape"
        " of the other. *Relation*: the objects are right and stand in another order.", "",
        *markdown(["caption of", "draws", "right", *MISTAKES], errors), "",
        "Objects that are seen, by how many are asked for, of readable draws:", "",
        *markdown(["asked for", *seen], counts), "",
        "## The worst captions", "",
        f"Of at most {asked.candidates} captions whose draw above was wrong {asked.k} draws each,"
        f" by other noise; the {NUM_WORST} that are obeyed least. (Chosen by these draws, so that"
        " further ones would look a little better.)", "",
        *worst_section(worst, shown, asked, output), "",
        *white_section(output),
    ]  # fmt: skip
    (output / "results.md").write_text("\n".join(lines).rstrip() + "\n")
    content = {
        "size": dataclasses.asdict(size), "asked": dataclasses.asdict(asked),
        "mistakes": [[*pair] for pair in zip(captions, wrong, strict=True)], "worst": worst,
    }  # fmt: skip
    (output / "results.json").write_text(json.dumps(content) + "\n")


def best_of(file: Path) -> tuple[Size, float, str]:
    """Size, strength and threshold of the cell that obeys most, the weaker of equal ones."""
    known = json.loads(file.read_text())
    cell = max(known["cells"], key=lambda cell: (cell["accuracy"], -cell["strength"]))
    return Size(**known["size"]), cell["strength"], cell["threshold"]


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", type=Path, help="folder of `smcdiff train text shapes`")
    parser.add_argument("--strength", type=float, help="in place of the best of text_pareto")
    parser.add_argument("--threshold", choices=list(THRESHOLDS), default="none",
                        help="with --strength")  # fmt: skip
    parser.add_argument("-n", type=int, default=Size.n, help="captions, with --strength")
    parser.add_argument("--steps", type=int, default=Size.steps, help="with --strength")
    parser.add_argument("--candidates", type=int, default=64, help="captions drawn again")
    parser.add_argument("-k", type=int, default=8, help="further draws of each")
    parser.add_argument("--pareto", type=Path, default=PARETO / "results.json")
    parser.add_argument("--cache", type=Path, default=PARETO / "cache", help="folder of draws")
    parser.add_argument("--more", type=Path, default=HERE / "cache", help="of further ones")
    options = parsed(parser, HERE, arguments)
    if options.smoke:
        size, asked = Size(n=6, steps=2, chunk=6), Asked(3.0, "static", 3, 2)
        with tempfile.TemporaryDirectory() as folder:
            options.cache, options.more = Path(folder) / "draws", Path(folder) / "more"
            prior = random_models(drawn_captions(size.n, PART))[0]
            run(prior, "random", asked, size, options)
        return
    if options.prior is None:
        parser.error("give --prior FOLDER, of `smcdiff train text shapes -o FOLDER`")
    if options.strength is not None:
        size, strength = Size(options.n, options.steps), options.strength
        threshold = options.threshold
    elif options.pareto.exists():
        size, strength, threshold = best_of(options.pareto)
    else:
        parser.error(f"{options.pareto} is not there: run experiments/text_pareto, or give"
                     " --strength")  # fmt: skip
    prior = load_prior(options.prior)
    if type(prior.denoiser) is not TextDenoiser:
        parser.error(f"{options.prior} is no prior of captions; give one of `train text`")
    asked = Asked(strength, threshold, options.candidates, options.k)
    run(prior, weights_of(options.prior), asked, size, options)


if __name__ == "__main__":
    main()
