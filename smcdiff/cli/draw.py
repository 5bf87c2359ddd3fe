"""``smcdiff draw``: pictures of a caption, guided, or weighed by a particle filter."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import jax
import numpy as np
import typer
from jaxtyping import Array, Key, PRNGKeyArray

from smcdiff.base._progress import ProgressBar
from smcdiff.cascades import Cascade
from smcdiff.cli import draw_options as opt
from smcdiff.cli.caption_filter import CaptionFilter, Observed
from smcdiff.cli.captioned import (
    Guidance,
    check_caption,
    load_caption_prior,
    load_cascade,
    naming,
)
from smcdiff.cli.drawing import check_numbers, draw_all, drawer, raise_all, write_samples
from smcdiff.cli.interrupt import interruptible
from smcdiff.cli.output import new_folder
from smcdiff.cli.summary import summarise
from smcdiff.results.posterior import Posterior

_REMEDY = "take --strength near 1, or --threshold static"


def draw(
    caption: opt.Caption,
    prior: opt.Prior = None,
    strength: opt.Strength = 3.0,
    threshold: opt.Threshold = "none",
    background: opt.Background = None,
    cascade: opt.Cascade = None,
    log_snr: opt.LogSnr = None,
    number: opt.Number = 16,
    steps: opt.Steps = 100,
    particles: opt.Particles = None,
    chains: opt.Chains = None,
    clip: opt.Clip = None,
    against: opt.Against = None,
    batch_size: opt.BatchSize = None,
    seed: opt.Seed = 0,
    output: opt.Output = Path("smcdiff-draw"),
) -> None:
    """Draw pictures of a caption.

    Writes samples.npy, (number, h, w, c) with black -1 and white 1, and samples.png into a new
    folder. Draws at a --strength other than 1 are a heuristic: they are those of no prior.

    With --particles the caption is an observation, and a particle filter weighs the prior without
    it: by --clip, as the probability that CAPTION and none of the alternatives is the picture's;
    without towers by how much likelier the prior's own network takes the picture to be with the
    caption than without. Strength and threshold then say where to look, and change nothing of what
    is looked for. posterior.nc holds the weighted particles (open it with smcdiff.Posterior.load);
    samples are equally weighted draws of them. With --cascade each particle is raised once: it is
    the site 'raised' of the posterior, with the weight of its 'x'.

    Bad input ends with one line and exit code 2 before the run starts, Ctrl-C with exit code 130
    and nothing written.

    Examples, after `smcdiff train text shapes -o my-shapes`: `smcdiff draw "two red circles"
    --prior my-shapes --strength 3 --threshold static`; `smcdiff draw "two red circles above a blue
    square" --prior my-shapes --clip shapes-clip --particles 64`.
    """
    check_caption("CAPTION", caption)
    check_numbers(number, steps)
    guidance = Guidance.of(strength, threshold, background)
    weighing = CaptionFilter(particles, chains, batch_size, steps, clip, against)
    weighing.check()
    distribution = load_caption_prior(prior)
    distribution.num_steps = steps
    raising = load_cascade(cascade, log_snr, distribution, steps)
    with naming(f"--prior {prior}"):
        given = guidance.given(distribution, caption)
    keys = jax.random.split(jax.random.key(seed), 3)
    if particles is not None:
        observed = weighing.observe(distribution, caption, guidance)
        _weigh(weighing, observed, caption, raising, keys, number, output)
        return
    with new_folder(output) as folder:
        samples = draw_all(drawer(given), keys[0], number, _REMEDY)
        if raising is not None:
            samples = raise_all(raising, keys[1], samples)
        write_samples(folder, samples)
    typer.echo(f"{number} draws of shape {samples.shape[1:]} in {output}")
    if guidance.is_heuristic:
        typer.echo(
            f"Guidance of strength {strength:g} without weights is a heuristic: these are the draws"
            " of no prior. --strength 1 draws from the caption's prior, and --particles weighs"
        )


def _weigh(
    weighing: CaptionFilter,
    observed: Observed,
    caption: str,
    cascade: Cascade | None,
    keys: Key[Array, " n"],
    number: int,
    output: Path,
) -> None:
    """Runs the filter, raises its particles, writes the posterior and shows what it is."""

    def run(progress):
        smc = weighing.smc(observed.model, observed.proposal, progress)
        return smc.run(keys[0], *observed.arguments)

    about = {"caption": caption, "observed by": observed.words}
    with new_folder(output) as folder:
        start = time.perf_counter()
        posterior = interruptible(run, ProgressBar())
        posterior = dataclasses.replace(posterior, attrs={**posterior.attrs, **about})
        if cascade is not None:
            posterior = _raised(cascade, keys[1], posterior)
        seconds = time.perf_counter() - start
        *_, site = posterior.samples
        samples = np.asarray(posterior.resample(keys[2], number)[site])
        files = [posterior.save(folder / "posterior.nc"), *write_samples(folder, samples)]
    summarise(posterior, None, seconds, files, about)


def _raised(cascade: Cascade, key: PRNGKeyArray, posterior: Posterior) -> Posterior:
    """With a site 'raised': a draw of the highest resolution for each particle."""
    high = raise_all(cascade, key, posterior.pooled("x"))
    high = high.reshape(*posterior.log_weights.shape, *high.shape[1:])
    return dataclasses.replace(posterior, samples={**posterior.samples, "raised": high})
