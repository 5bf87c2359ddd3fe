"""Options and helpers that the commands of ``smcdiff train`` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from smcdiff.base._files import made_folder
from smcdiff.base._progress import Progress, ProgressBar
from smcdiff.cli.interrupt import interruptible
from smcdiff.cli.output import REMEDY
from smcdiff.errors import InputError

Steps = Annotated[int, typer.Option(help="Optimiser steps.")]
Images = Annotated[int, typer.Option(help="Images per step.")]
LearningRate = Annotated[float, typer.Option(help="Peak, after 100 steps of warm-up.")]
Seed = Annotated[int, typer.Option(help="Of weights, order and noise.")]
Channels = Annotated[str, typer.Option(help="Channels of each resolution.")]
Layers = Annotated[int, typer.Option(help="Residual blocks per resolution.")]
Patch = Annotated[int, typer.Option(help="Pixels folded into channels, each way.")]
CheckpointEvery = Annotated[int, typer.Option(help="Steps between checkpoints.")]
Ema = Annotated[float, typer.Option(help="Decay of the averaged weights.")]
Prediction = Annotated[str, typer.Option(help="What the network learns: v, eps or x0.")]
Weighting = Annotated[
    str, typer.Option(help="Weight of the noise levels: uniform, min-snr or lognormal.")
]
LogSnrMean = Annotated[
    float, typer.Option(help="Mean log-SNR of the levels drawn, with lognormal.")
]
LogSnrStd = Annotated[float, typer.Option(help="Its standard deviation, with lognormal.")]
UniformShare = Annotated[
    float, typer.Option(help="Share drawn at uniform times nevertheless, with lognormal.")
]
Schedule = Annotated[
    str, typer.Option(help="Learning rate after the warm-up: cosine, linear or constant.")
]
SampleEvery = Annotated[int, typer.Option(help="Steps between sample grids.")]
Init = Annotated[
    str | None, typer.Option(help="Name or folder of a prior whose weights to start from.")
]
Model = Annotated[str, typer.Option(help="FILE:FUNCTION, a NumPyro model that takes no arguments.")]
Data = Annotated[
    Path | None, typer.Option(help="Images to draw from; left out: draws of the prior.")
]
Description = Annotated[str, typer.Option(help="One line, for the model card.")]
Licence = Annotated[str, typer.Option(help="Of the data, for the model card.")]
CaptionedPictures = Annotated[
    str, typer.Argument(help="shapes, or a folder or file of pictures with captions.json.")
]
Encoder = Annotated[str, typer.Option(help="Text encoder: minilm, or its folder.")]
Captions = Annotated[
    str | None,
    typer.Option(help="File of encoded captions, made if missing; else in the folder."),
]
CaptionKey = Annotated[
    str, typer.Option(help="Of the objects in captions.json, if they are not texts.")
]
Size = Annotated[
    int | None, typer.Option(help="Average pictures to so many pixels a side; shapes: 32.")
]
HeldOut = Annotated[
    float, typer.Option(help="Share of the captions of files that are held out, by their hashes.")
]
TextChannels = Annotated[int, typer.Option(help="Channels of the tokens.")]


def channels_of(text: str) -> tuple[int, ...]:
    """The numbers of --channels."""
    return numbers("--channels", text)


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers between commas; ``InputError`` where they are not."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: give whole numbers, for example 32,64") from error


def listening(output: Path, run: Callable[[Progress], Path]) -> Path:
    """Runs a training so that Ctrl-C ends it at once; no empty folder is left."""
    with made_folder(output, REMEDY):
        return interruptible(run, ProgressBar("Training"))
