"""The options of ``smcdiff draw``, in the groups of its manual."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smcdiff.cli.options import LARGEST_SEED

_GUIDE, _WEIGH, _RAISE = "How the caption guides", "The caption weighed", "The resolution"

Caption = Annotated[str, typer.Argument(help="What to draw: 'two red circles'.")]
Prior = Annotated[
    str | None,
    typer.Option(
        help="Folder of a prior of captions, of `smcdiff train text`.", show_default=False
    ),
]
Strength = Annotated[
    float,
    typer.Option(
        help="Of classifier-free guidance; 1 is the caption alone.", rich_help_panel=_GUIDE
    ),
]
Threshold = Annotated[
    str,
    typer.Option(
        help="Bring guided means back to the data's range: none, static or dynamic.",
        rich_help_panel=_GUIDE,
    ),
]
Background = Annotated[
    float | None,
    typer.Option(
        help="--threshold dynamic: the value that stays what it is, -1 black to 1 white; else 0.",
        rich_help_panel=_GUIDE,
    ),
]
Cascade = Annotated[
    str | None,
    typer.Option(
        metavar="UPSAMPLER[,UPSAMPLER]",
        help="Folders of `smcdiff train upsampler`, from the lowest resolution.",
        rich_help_panel=_RAISE,
    ),
]
LogSnr = Annotated[
    float | None,
    typer.Option(
        help="Of the noise on what upsamplers see, large is little, inf none; else 3.",
        rich_help_panel=_RAISE,
    ),
]
Number = Annotated[
    int,
    typer.Option("--number", "-n", help="How many pictures; with --particles equal draws."),
]
Steps = Annotated[int, typer.Option(help="Reverse diffusion steps, of each stage.")]
Particles = Annotated[
    int | None,
    typer.Option(
        help="Weigh the caption as an observation, with so many particles per chain.",
        rich_help_panel=_WEIGH,
    ),
]
Chains = Annotated[
    int | None,
    typer.Option(
        help="Independent runs; their spread is the Monte-Carlo error. Else 4.",
        rich_help_panel=_WEIGH,
    ),
]
Clip = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Towers of `smcdiff train clip`, which say how well pictures fit; else those that ship"
        " for such pictures and words. none: the prior's own network says it, which is slow.",
        rich_help_panel=_WEIGH,
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="'A;B;C'",
        help="--clip: captions that CAPTION is told apart from; of shapes else all that differ"
        " by one word.",
        rich_help_panel=_WEIGH,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Particles in the network at once, over all chains; else all.",
        rich_help_panel=_WEIGH,
    ),
]
Seed = Annotated[int, typer.Option(help="Of the random numbers.", min=0, max=LARGEST_SEED)]
Output = Annotated[Path, typer.Option("--output", "-o", help="New folder for the results.")]
