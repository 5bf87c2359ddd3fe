"""``smcdiff draw``: pictures of a caption, guided, or weighed by a particle filter."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from jaxtyping import Array, Key, PRNGKeyArray

from smcdiff.base._progress import ProgressBar
from smcdiff.cascades import Cascade
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
from smcdiff.cli.options import LARGEST_SEED
from smcdiff.cli.output import new_folder
from smcdiff.cli.summary import summarise
from smcdiff.results.posterior import Posterior

_GUIDE, _WEIGH, _RAISE = "How the caption guides", "The caption weighed", "The resolution"
_REMEDY = "take --strength near 1, or --threshold static"


def draw(
    caption: Annotated[str, typer.Argument(help="What to draw: 'two red circles'.")],
    prior: Annotated[
        str | None,
        typer.Option(
            help="Folder of a prior of captions, of `smcdiff train text`.", show_default=False
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            help="Of classifier-free guidance; 1 is the caption alone.", rich_help_panel=_GUIDE
        ),
    ] = 3.0,
    threshold: Annotated[
        str,
        typer.Option(
            help="Bring guided means back to the data's range: none, static or dynamic.",
            rich_help_panel=_GUIDE,
        ),
    ] = "none",
    background: Annotated[
        float | None,
        typer.Option(
            help="--threshold dynamic: the value that stays what it is, -1 black to 1 white; else"
            " 0.",
            rich_help_panel=_GUIDE,
        ),
    ] = None,
    cascade: Annotated[
        str | None,
        typer.Option(
            metavar="UPSAMPLER[,UPSAMPLER]",
            help="Folders of `smcdiff train upsampler`, from the lowest resolution.",
            rich_help_panel=_RAISE,
        ),
    ] = None,
    log_snr: Annotated[
        float | None,
        typer.Option(
            help="Of the noise on what upsamplers see, large is little, inf none; else 3.",
            rich_help_panel=_RAISE,
        ),
    ] = None,
    number: Annotated[
        int,
        typer.Option("--number", "-n", help="How many pictures; with --particles equal draws."),
    ] = 16,
    steps: Annotated[int, typer.Option(help="Reverse diffusion steps, of each stage.")] = 100,
    particles: Annotated[
        int | None,
        typer.Option(
            help="Weigh the caption as an observation, with so many particles per chain.",
            rich_help_panel=_WEIGH,
        ),
    ] = None,
    chains: Annotated[
        int | None,
        typer.Option(
            help="Independent runs; their spread is the Monte-Carlo error. Else 4.",
            rich_help_panel=_WEIGH,
        ),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Towers of `smcdiff train clip`, which say how well pictures fit; else the prior.",
            rich_help_panel=_WEIGH,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="'A;B;C'",
            help="--clip: captions that CAPTION is told apart from; of shapes else all that differ"
            " by one word.",
            rich_help_panel=_WEIGH,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Particles in the network at once, over all chains; else all.",
            rich_help_panel=_WEIGH,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random numbers.", min=0, max=LARGEST_SEED)] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="New folder for the results.")
    ] = Path("smcdiff-draw"),
) -> None:
    """Draw pictures of a caption.

    Writes samples.npy, (number, h, w, c) with black -1 and white 1, and samples.png into a new
    folder. Draws at a --strength other than 1 are a heuristic: they are those of no prior.

    With --particles the caption is an observation, and a particle filter weighs the prior without
    it: by --clip, as the probability that CAPTION and none of the alternatives is the picture's;
    else by how much likelier the prior's own network takes the picture to be with the caption than
    without. Strength and threshold then say where to look, and change nothing of what is looked
    for. posterior.nc holds the weighted particles (open it with smcdiff.Posterior.load); samples
    are equally weighted draws of them. With --cascade each particle is raised once: it is the site
    'raised' of the posterior, with the weight of its 'x'.

    Bad input ends with one line and exit code 2 before the run starts, Ctrl-C with exit code 130
    and nothing written.

    Examples, after `smcdiff train text shapes -o my-shapes`: `smcdiff draw "two red circles"
    --prior my-shapes --strength 3 --threshold static`; `smcdiff draw "two red circles above a blue
    square" --prior my-shapes --clip my-clip --particles 64`.
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
