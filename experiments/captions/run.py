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
import sys
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

from smcdiff import (
    SMC,
    DegeneracyWarning,
    load_clip,
    load_prior,
    operators,
    proposals,
    shapes,
    twists,
)
from smcdiff.base._pixels import to_bytes, to_unit_range
from smcdiff.results import plots

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "text_pareto"))
from random_models import random_models  # noqa: E402
from scored_draws import markdown, parsed, weights_of  # noqa: E402

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
        proposal: from the prior of the caption.
        strength: of guidance, of the site's prior.
        conditional: whether the caption is given to the site's prior as well.
        weighted: whether there are weights.
    """

    proposal: Callable[[Any], proposals.Proposal]
    strength: float = 1.0
    conditional: bool = True
    weighted: bool = True


def guidance(strength: float) -> Method:
    """Draws of the guided prior."""
    return Method(lambda given: proposals.Bootstrap(), strength, weighted=False)


def methods(steps: int, strength: float) -> dict[str, Method]:
    """By name: at strength 1 and at another one."""
    weigh = proposals.Bootstrap(twist=twists.Likelihood())
    steer = proposals.FKSteering(weigh, every=max(1, steps // 5))
    found = {}
    for omega in dict.fromkeys((1.0, strength)):
        found[f"guidance {omega:g}"] = guidance(omega)
        found[f"SMC, guided prior {omega:g}"] = Method(lambda given: weigh, omega)
        found[f"FK-steering (max), guided prior {omega:g}"] = Method(lambda given: steer, omega)
    found["SMC, prior without caption, guided draws"] = Method(
        lambda given: proposals.ClassifierFree(given, strength, twist=twists.Likelihood()),
        conditional=False,
    )
    return found


def sampler(model: Callable, proposal: proposals.Proposal, weighted: bool, options) -> SMC:
    """All methods have one size."""
    return SMC(
        model, proposal, num_particles=options.particles, num_steps=options.steps,
        weighted=weighted, progress_bar=False,
    )  # fmt: skip


def of_caption(networks: Networks, method: Method, caption: str, key, options) -> dict:
    """How often a draw is right, whether the towers' favourite is, the ESS, and a picture."""
    prior = networks.given(caption, method.strength) if method.conditional else networks.prior
    smc = sampler(
        captioned, method.proposal(networks.given(caption, 1.0)), method.weighted, options
    )
    texts = networks.alternatives(caption)
    draws = Draws.of(smc.run(key, prior, networks.clip, texts))
    right = np.array([shapes.check(image, caption) for image in draws.images])
    scores = networks.clip.image(jnp.asarray(draws.images)) @ texts.T
    log_odds = jax.nn.log_softmax(
        networks.clip.scale * scores / networks.clip.temperature, axis=-1
    )[:, 0]
    heaviest = draws.images[int(np.argmax(draws.weights))]
    return {
        "right": float(draws.weights @ right / draws.weights.sum()),
        "best": bool(right[int(np.argmax(log_odds))]), "ess": draws.ess,
        "picture": to_bytes(heaviest).tolist(),
    }  # fmt: skip


class Records:
    """What is done, in a file that grows by a line at a time."""

    def __init__(self, file: Path):
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.known = {tuple(r["key"]): r for r in map(json.loads, lines)}

    def of(self, make: Callable[..., dict], networks, how, part: str, name: str, options) -> list:
        """A record of each caption, made where it is not there; ``part`` names the captions."""
        found = []
        for place, caption in enumerate(getattr(options, part)):
            key = (
                name, part, place, caption, options.particles, options.steps,
                weights_of(options.prior), weights_of(options.towers),
            )  # fmt: skip
            if key not in self.known:
                start = time.process_time()
                seed = jax.random.fold_in(jax.random.key(7), place)
                record = make(networks, how, caption, seed, options)
                record |= {"key": key, "seconds": time.process_time() - start}
                self.known[key] = record
                with self.file.open("a") as out:
                    out.write(json.dumps(record) + "\n")
                print(key, record["right"], f"{record['seconds']:.0f} s", flush=True)
            found.append(self.known[key])
        return found


def share(values: np.ndarray) -> str:
    """Of ones, or a dash where there is nothing."""
    return f"{values.mean():.0%}" if len(values) else "-"


def cells(values, captions: tuple[str, ...]) -> list[str]:
    """In all with the standard error over captions, and by what captions are of."""
    values = np.array(values, float)
    forms = np.array([shapes.parse(caption).form for caption in captions])
    error = values.std() / np.sqrt(len(values))
    by_form = [share(values[forms == form]) for form in shapes.FORMS]
    return [f"{values.mean():.1%} +- {error:.1%}", *by_form]


def cost(records: list[dict]) -> list[str]:
    """Median ESS and processor time."""
    ess, seconds = ([r[name] for r in records] for name in ("ess", "seconds"))
    return [f"{np.median(ess):.1f}", f"{np.mean(seconds):.0f}"]


def by_strength(networks: Networks, records: Records, options) -> tuple[list[str], float]:
    """Guidance alone on captions of the training, and the best strength there."""
    rows, means = [], {}
    for strength in STRENGTHS:
        name = f"guidance {strength:g}"
        found = records.of(of_caption, networks, guidance(strength), "seen", name, options)
        right = [record["right"] for record in found]
        means[strength] = np.mean(right)
        rows.append([f"{strength:g}", *cells(right, options.seen)])
    return markdown(["strength", "right", *shapes.FORMS], rows), max(means, key=means.__getitem__)


def by_method(networks: Networks, records: Records, options) -> list[str]:
    """A row for each method, one more for the best of the guided draws, and the picture."""
    rows, pictures = [], []
    for name, method in methods(options.steps, options.strength).items():
        found = records.of(of_caption, networks, method, "captions", name, options)
        told = {"right": name}
        if not method.weighted:
            told["best"] = f"best of them by the towers: {name}"
        for what, label in told.items():
            values = cells([record[what] for record in found], options.captions)
            rows.append([label, *values, *cost(found)])
        pictures += [record["picture"] for record in found[:SHOWN]]
    images = to_unit_range(np.array(pictures, np.uint8))
    shown = options.captions[:SHOWN]
    plots.save_captioned(images, shown, options.output / "draws.png", scale=4)
    header = ["method", "right", *shapes.FORMS, "ESS (median)", "CPU s a caption"]
    return markdown(header, rows)


def half_methods(strength: float) -> dict[str, Method]:
    """By name; the prior knows the caption."""
    return {
        f"replacement, guided prior {omega:g}": Method(
            lambda given: proposals.Replacement(), omega, weighted=False
        ) for omega in dict.fromkeys((1.0, strength))
    } | {
        f"SMC (TwistedPath), guided prior {omega:g}": Method(
            lambda given: proposals.TwistedPath(), omega
        ) for omega in dict.fromkeys((1.0, strength))
    }  # fmt: skip


def of_half(networks: Networks, method: Method, caption: str, key, options) -> dict:
    """The right half of a picture hidden: is the caption right, and is the left half kept?"""
    key_picture, key_noise, key_run = jax.random.split(key, 3)
    given = networks.given(caption, method.strength)
    seen = np.zeros(given.event_shape, bool)
    seen[:, : seen.shape[1] // 2] = True
    mask = operators.Mask.of(seen)
    clean = mask(shapes.render(caption, key_picture, len(seen)))
    y = clean + NOISE * jax.random.normal(key_noise, clean.shape)
    smc = sampler(half_seen, method.proposal(given), method.weighted, options)
    draws = Draws.of(smc.run(key_run, given, mask, y=y))
    right = np.array([shapes.check(image, caption) for image in draws.images])
    residuals = np.asarray(jax.vmap(mask)(jnp.asarray(draws.images)) - y[None])
    kept = np.sqrt(np.mean(residuals**2, axis=1)) < WITHIN * NOISE
    weights = draws.weights / draws.weights.sum()
    told = {"right": right, "kept": kept, "both": right & kept}
    return {name: float(weights @ value) for name, value in told.items()} | {"ess": draws.ess}


def by_half(networks: Networks, records: Records, options) -> list[str]:
    """A row for each method."""
    rows = []
    for name, method in half_methods(options.strength).items():
        found = records.of(of_half, networks, method, "halves", name, options)
        both, right, kept = (np.array([r[k] for r in found]) for k in ("both", "right", "kept"))
        error = both.std() / np.sqrt(len(both))
        shares = [f"{both.mean():.1%} +- {error:.1%}", f"{right.mean():.1%}", f"{kept.mean():.1%}"]
        rows.append([name, *shares, *cost(found)])
    header = ["method", "both", "caption right", "half kept", "ESS (median)", "CPU s a caption"]
    return markdown(header, rows)


def measure(networks: Networks, options) -> list[str]:
    """All tables."""
    options.captions = shapes.random_captions(
        jax.random.key(5), options.number, shapes.Split.HELD_OUT
    )
    options.halves = options.captions[: options.number_halves]
    options.seen = shapes.random_captions(jax.random.key(6), options.number_seen)
    records = Records(options.output / "records.jsonl")
    strengths, options.strength = by_strength(networks, records, options)
    found, halves = (part(networks, records, options) for part in (by_method, by_half))
    return [
        "## Guidance by strength", "",
        f"{len(options.seen)} captions of the training, {options.particles} draws of each. The"
        f" best strength, {options.strength:g}, is taken below.", "", *strengths, "",
        "## Held-out captions", "",
        f"{len(options.captions)} captions; {options.particles} particles, {options.steps} steps."
        " *Right*: the checker finds what the caption says, all of it and nothing else, averaged"
        " by weight over the particles (as often a draw from them is right), +- its standard"
        " error over the captions; by the number of objects, or for two groups.", "",
        *found, "", "![the heaviest particle of each method](draws.png)", "",
        "Rows: " + "; ".join(methods(options.steps, options.strength)) + ".", "",
        "## A caption and half a picture", "",
        f"{len(options.halves)} of the captions; the left half of a picture of each is seen with"
        f" noise {NOISE}. *Kept*: the residuals' root mean square is below {WITHIN} of the noise.",
        "", *halves,
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Parses the options, runs, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", type=Path, help="folder of `smcdiff train text shapes`")
    parser.add_argument("--towers", type=Path, help="folder of `smcdiff train clip shapes`")
    parser.add_argument("--number", type=int, default=200, help="held-out captions")
    parser.add_argument("--number-seen", type=int, default=50, help="captions of the training")
    parser.add_argument(
        "--number-halves", type=int, default=50, help="captions with half a picture"
    )
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    options = parsed(parser, HERE, arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", DegeneracyWarning)  # the table says it
    if options.smoke:
        options.number = options.number_seen = options.number_halves = 2
        options.particles, options.steps = 4, 4
        tables = measure(Networks(*random_models(shapes.captions()[:8])[:2]), options)
    elif options.prior is None or options.towers is None:
        parser.error("give --prior FOLDER and --towers FOLDER")
    else:
        networks = Networks(load_prior(options.prior), load_clip(options.towers))
        tables = measure(networks, options)
    lines = ["# Captions as observations", "", f"Written by `{options.command}`", "", *tables]
    (options.output / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
