"""Captions as observations: the particle filter against guidance and best-of-N, at equal cost.

    python experiments/captions/run.py --prior FOLDER --towers FOLDER    # hours on two cores
    python experiments/captions/run.py --smoke                           # what the slow tests run

FOLDER are those of `smcdiff train text shapes` and `smcdiff train clip shapes`. Captions are random
held-out ones, half of them of one group. The judge is the exact checker, `smcdiff.shapes.check`;
what steers is the towers' probability of the caption among its one-word changes. All methods have
as many particles and steps, so as many evaluations of the prior's network for each caption.

The second part hides the right half of a picture of the caption, as well.

Writes results.md, and a picture of what each method draws; records.jsonl beside them (not in git)
keeps what is done, and the same command goes on there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import SMC, DegeneracyWarning, load_clip, load_prior, operators, proposals, shapes
from smcdiff import twists as tw
from smcdiff.results import plots
from smcdiff.training import ClipTrainConfig, TextTrainConfig, train_clip, train_text

HERE = Path(__file__).parent
SMALL_ENCODER = HERE.parents[1] / "tests" / "text" / "references" / "bert"
"""Of the smoke size: random weights."""
STRENGTHS = (1.0, 2.0, 3.0, 5.0)
NOISE = 0.1
WITHIN = 1.2
"""The root mean square of the residuals, in standard deviations of the noise, is at most this."""
SHOWN = 10


class Networks(NamedTuple):
    """What is learned.

    Attributes:
        prior: of captions.
        clip: towers of clean pictures.
    """

    prior: Any
    clip: Any

    def given(self, caption: str, strength: float) -> Any:
        """The prior of a caption; strength 1 is the caption alone."""
        return self.prior.given(caption, None if strength == 1.0 else strength)

    def alternatives(self, caption: str) -> Any:
        """The caption, first, and its one-word changes, as the towers see them."""
        return self.clip.text([caption, *shapes.one_word_changes(caption)])


def captioned(prior, clip, texts):
    """A picture, and its caption among alternatives, of which the first is observed."""
    x = numpyro.sample("x", prior)
    scores = clip.scale * (texts @ clip.image(x)) / clip.temperature
    numpyro.sample("caption", dist.Categorical(logits=scores), obs=0)


def half_seen(prior, mask, y=None):
    """A picture whose left half is seen with noise."""
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(mask(x), NOISE).to_event(1), obs=y)


class Draws(NamedTuple):
    """What a method found for a caption: pictures and their weights, and the smallest ESS."""

    images: np.ndarray
    weights: np.ndarray
    ess: float

    @classmethod
    def of(cls, posterior: Any) -> Draws:
        """Of one chain."""
        return cls(
            np.asarray(posterior.samples["x"][0]), np.exp(np.asarray(posterior.log_weights[0])),
            float(np.min(posterior.ess)),
        )  # fmt: skip


class Method(NamedTuple):
    """A way to draw pictures of a caption.

    Attributes:
        strength: of guidance.
        proposal: from the networks, the caption and the strength; None draws without weights.
        conditional: whether the caption is given to the site's prior as well.
    """

    strength: float
    proposal: Callable[[Networks, str, float], proposals.Proposal]
    conditional: bool
    weighted: bool = True


def methods(steps: int, strength: float) -> dict[str, Method]:
    """By name; all at one strength, and those of strength 1."""
    every = max(1, steps // 5)

    def steered(networks, caption, strength):
        return proposals.Bootstrap(twist=tw.Likelihood())

    def fk(networks, caption, strength):
        return proposals.FKSteering(proposals.Bootstrap(twist=tw.Likelihood()), every=every)

    def free(networks, caption, strength):
        given = networks.given(caption, 1.0)
        return proposals.ClassifierFree(given, strength, twist=tw.Likelihood())

    def plain(networks, caption, strength):
        return proposals.Bootstrap()

    found = {}
    for omega in dict.fromkeys((1.0, strength)):
        found[f"guidance {omega:g}"] = Method(omega, plain, True, False)
        found[f"SMC, guided prior {omega:g}"] = Method(omega, steered, True)
        found[f"FK-steering (max), guided prior {omega:g}"] = Method(omega, fk, True)
    found["SMC, prior without caption, guided draws"] = Method(1.0, free, False)
    return found


def draw(networks: Networks, caption: str, method: Method, options, key) -> Draws:
    """One run of a method."""
    prior = networks.given(caption, method.strength) if method.conditional else networks.prior
    smc = SMC(
        captioned, method.proposal(networks, caption, method.strength),
        num_particles=options.particles, num_steps=options.steps, weighted=method.weighted,
        progress_bar=False,
    )  # fmt: skip
    return Draws.of(smc.run(key, prior, networks.clip, networks.alternatives(caption)))


def score(networks: Networks, images: np.ndarray, caption: str) -> np.ndarray:
    """Log probabilities of the caption among its alternatives."""
    texts = networks.alternatives(caption)
    vectors = networks.clip.image(jnp.asarray(images)) @ texts.T
    logits = networks.clip.scale * vectors / networks.clip.temperature
    return np.asarray(jax.nn.log_softmax(logits, axis=-1)[:, 0])


class Records:
    """What is done, in a file that grows by a line at a time."""

    def __init__(self, file: Path):
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.known = {(r["method"], r["caption"], r["run"]): r for r in map(json.loads, lines)}

    def of(self, method: str, caption: str, run: str, make: Callable[[], dict]) -> dict:
        """A record, made where it is not there."""
        key = method, caption, run
        if key not in self.known:
            start = time.process_time()
            found = make()
            found |= {"method": method, "caption": caption, "run": run}
            found["seconds"] = time.process_time() - start
            self.known[key] = found
            with self.file.open("a") as out:
                out.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)
        return self.known[key]


def judged(networks: Networks, draws: Draws, caption: str) -> dict:
    """How often a draw is right, whether the towers' favourite is, and the ESS."""
    right = np.array([shapes.check(image, caption) for image in draws.images])
    best = int(np.argmax(score(networks, draws.images, caption)))
    return {
        "right": float(draws.weights @ right / draws.weights.sum()),
        "best": bool(right[best]),
        "ess": draws.ess,
    }


def caption_records(networks: Networks, records: Records, options) -> dict[str, list[dict]]:
    """For every method a record of each caption, the captions' order."""
    found: dict[str, list[dict]] = {}
    run = f"{options.particles}x{options.steps}"
    for place, caption in enumerate(options.captions):
        key = jax.random.fold_in(jax.random.key(7), place)
        for name, method in methods(options.steps, options.strength).items():
            record = records.of(
                name, f"{place} {caption}", run,
                lambda method=method, caption=caption, key=key: judged(
                    networks, draw(networks, caption, method, options, key), caption
                ),
            )  # fmt: skip
            found.setdefault(name, []).append(record)
    return found


def caption_rows(found: dict[str, list[dict]], captions: list[str]) -> list[str]:
    """A row for each method, and one for the best of the guided draws."""
    kinds = np.array([shapes.parse(caption).form for caption in captions])
    lines = [
        f"| method | right | {' | '.join(shapes.FORMS)} | ESS (median) | CPU s a caption |",
        "|---" * (4 + len(shapes.FORMS)) + "|",
    ]
    for name, records in found.items():
        for told, label in (("right", name), ("best", f"best of them by the towers: {name}")):
            if told == "best" and not name.startswith("guidance"):
                continue
            right = np.array([float(record[told]) for record in records])
            error = right.std() / np.sqrt(len(right))
            cells = [label, f"{right.mean():.1%} +- {error:.1%}"]
            cells += [share(right[kinds == one]) for one in shapes.FORMS]
            cells += [
                f"{np.median([record['ess'] for record in records]):.1f}",
                f"{np.mean([record['seconds'] for record in records]):.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def share(values: np.ndarray) -> str:
    """Of ones, or a dash where there is nothing."""
    return f"{values.mean():.0%}" if len(values) else "-"


def strength_rows(networks: Networks, records: Records, options) -> tuple[list[str], float]:
    """Guidance alone by strength, on captions of the training, and the best strength there."""
    lines = [
        f"| strength | right | {' | '.join(shapes.FORMS)} |",
        "|---" * (2 + len(shapes.FORMS)) + "|",
    ]
    captions = options.seen
    kinds, means = np.array([shapes.parse(caption).form for caption in captions]), {}
    for strength in STRENGTHS:
        method = Method(strength, lambda *_: proposals.Bootstrap(), True, False)
        right = np.array([
            records.of(
                f"guidance {strength:g}", f"seen {place} {caption}",
                f"{options.particles}x{options.steps}",
                lambda caption=caption, place=place, method=method: judged(
                    networks,
                    draw(networks, caption, method, options,
                         jax.random.fold_in(jax.random.key(8), place)), caption,
                ),
            )["right"] for place, caption in enumerate(captions)
        ])  # fmt: skip
        means[strength] = right.mean()
        error = right.std() / np.sqrt(len(right))
        cells = [f"{strength:g}", f"{right.mean():.1%} +- {error:.1%}"]
        lines.append(
            f"| {' | '.join(cells + [share(right[kinds == one]) for one in shapes.FORMS])} |"
        )
    return lines, max(means, key=means.__getitem__)


def half_methods(strength: float) -> dict[str, tuple[float, proposals.Proposal, bool]]:
    """Strength of the prior, proposal, and whether it is weighted."""
    return {
        f"replacement, guidance {strength:g}": (strength, proposals.Replacement(), False),
        "replacement, the caption alone": (1.0, proposals.Replacement(), False),
        "SMC (TwistedPath), the caption alone": (1.0, proposals.TwistedPath(), True),
        f"SMC (TwistedPath), guided prior {strength:g}": (strength, proposals.TwistedPath(), True),
    }


def half_record(networks: Networks, caption: str, how, options, key) -> dict:
    """The right half of a picture hidden: is the caption right, and is the left half kept?"""
    strength, proposal, weighted = how
    key_picture, key_noise, key_run = jax.random.split(key, 3)
    shape = networks.prior.event_shape
    picture = shapes.render(caption, key_picture, shape[0])
    seen = np.zeros(shape, bool)
    seen[:, : shape[1] // 2] = True
    mask = operators.Mask.of(seen)
    y = mask(picture) + NOISE * jax.random.normal(key_noise, mask(picture).shape)
    smc = SMC(
        half_seen, proposal, num_particles=options.particles, num_steps=options.steps,
        weighted=weighted, progress_bar=False,
    )  # fmt: skip
    draws = Draws.of(smc.run(key_run, networks.given(caption, strength), mask, y=y))
    right = np.array([shapes.check(image, caption) for image in draws.images])
    residuals = np.asarray(jax.vmap(mask)(jnp.asarray(draws.images))) - np.asarray(y)[None]
    kept = np.sqrt(np.mean(residuals**2, axis=1)) < WITHIN * NOISE
    weights = draws.weights / draws.weights.sum()
    return {
        "right": float(weights @ right), "kept": float(weights @ kept),
        "both": float(weights @ (right & kept)), "ess": draws.ess,
    }  # fmt: skip


def half_rows(networks: Networks, records: Records, options) -> list[str]:
    """A row for each method."""
    lines = [
        "| method | caption right and half kept | caption right | half kept | ESS (median) |"
        " CPU s a caption |",
        "|---" * 6 + "|",
    ]
    for name, how in half_methods(options.strength).items():
        found = []
        for place, caption in enumerate(options.captions[: options.halves]):
            key = jax.random.fold_in(jax.random.key(9), place)
            make = lambda c=caption, k=key, h=how: half_record(networks, c, h, options, k)  # noqa: E731
            found.append(
                records.of(
                    name, f"half {place} {caption}", f"{options.particles}x{options.steps}", make
                )
            )
        both, right, kept = (
            np.array([r[told] for r in found]) for told in ("both", "right", "kept")
        )
        error = both.std() / np.sqrt(len(both))
        lines.append(
            f"| {name} | {both.mean():.1%} +- {error:.1%} | {right.mean():.1%} |"
            f" {kept.mean():.1%} | {np.median([r['ess'] for r in found]):.1f} |"
            f" {np.mean([r['seconds'] for r in found]):.0f} |"
        )
    return lines


def picture(networks: Networks, options, file: Path) -> None:
    """Captions, a column each; a draw of each method, by weight."""
    captions, rows = options.captions[:SHOWN], []
    for method in methods(options.steps, options.strength).values():
        for place, caption in enumerate(captions):
            key = jax.random.fold_in(jax.random.key(7), place)
            draws = draw(networks, caption, method, options, key)
            rows.append(draws.images[int(np.argmax(draws.weights))])
    plots.save_captioned(np.stack(rows), captions, file, scale=4)


def smoke_networks(folder: Path) -> Networks:
    """Trained for a few steps, on the encoder of the tests."""
    common = {"steps": 3, "batch_size": 4, "channels": (16,), "encoder": str(SMALL_ENCODER)}
    clip = ClipTrainConfig(**common, size=16, features=8, hidden=16, text_channels=8, heads=2)
    text = TextTrainConfig(**common, size=16, text_channels=8, heads=2)
    train_clip("shapes", folder / "clip", clip, progress_bar=False)
    train_text("shapes", folder / "prior", text, progress_bar=False)
    return Networks(load_prior(folder / "prior"), load_clip(folder / "clip"))


def measure(networks: Networks, options) -> list[str]:
    """All tables."""
    options.captions = shapes.random_captions(
        jax.random.key(5), options.number, shapes.Split.HELD_OUT
    )
    options.seen = shapes.random_captions(jax.random.key(6), options.number_seen)
    records = Records(options.output / "records.jsonl")
    by_strength, options.strength = strength_rows(networks, records, options)
    found = caption_records(networks, records, options)
    halves = half_rows(networks, records, options)
    picture(networks, options, options.output / "draws.png")
    return [
        "## Guidance by strength", "",
        f"{len(options.seen)} captions of the training, {options.particles} draws of each. The"
        f" best strength, {options.strength:g}, is taken below.", "", *by_strength, "",
        "## Held-out captions", "",
        f"{len(options.captions)} captions; {options.particles} particles, {options.steps} steps."
        " *Right*: the checker finds what the caption says, all of it and nothing else, averaged"
        " by weight over the particles (as often a draw from them is right), +- its standard"
        " error over the captions; by the number of objects, or for two groups.", "",
        *caption_rows(found, options.captions), "", "![a draw of each method](draws.png)", "",
        "Rows: " + "; ".join(methods(options.steps, options.strength)) + ".", "",
        "## A caption and half a picture", "",
        f"{options.halves} of the captions; the left half of a picture of each is seen with noise"
        f" {NOISE}. *Kept*: the residuals' root mean square is below {WITHIN} of the noise.", "",
        *halves,
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", type=Path, help="folder of `smcdiff train text shapes`")
    parser.add_argument("--towers", type=Path, help="folder of `smcdiff train clip shapes`")
    parser.add_argument("--number", type=int, default=200, help="held-out captions")
    parser.add_argument("--number-seen", type=int, default=50, help="captions of the training")
    parser.add_argument("--halves", type=int, default=50, help="captions with half a picture")
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in seconds")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    told = sys.argv[1:] if arguments is None else arguments
    warnings.simplefilter("ignore", DegeneracyWarning)  # the table says it
    if options.smoke:
        options.number = options.number_seen = options.halves = 2
        options.particles, options.steps = 4, 4
        with tempfile.TemporaryDirectory() as folder:
            tables = measure(smoke_networks(Path(folder)), options)
    elif options.prior is None or options.towers is None:
        parser.error("give --prior FOLDER and --towers FOLDER")
    else:
        networks = Networks(load_prior(options.prior), load_clip(options.towers))
        tables = measure(networks, options)
    command = shlex.join(["python", "experiments/captions/run.py", *told])
    lines = ["# Captions as observations", "", f"Written by `{command}`", "", *tables]
    (options.output / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
