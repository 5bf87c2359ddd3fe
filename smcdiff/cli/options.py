"""The options of ``smcdiff solve``, in the groups of its manual."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LARGEST_SEED = 2**32 - 1
_FILES, _HIDING, _BLUR = "The images", "Parts: inpaint and fourier", "Blur: deblur"
_OTHER, _SAMPLER, _RESULT = "Other operators", "The sampler", "The result"
_CATALOGUE = "Catalogues"

# What is solved.
Problem = Annotated[
    str,
    typer.Argument(
        help="inpaint, deblur, super-resolve, colourise, fourier, separable or dense; or several,"
        " joined by +, of which the first is applied first: deblur+super-resolve.",
        show_default=False,
    ),
]
Image = Annotated[
    Path | None,
    typer.Argument(
        help="The observation; with --simulate a clean image, which is degraded first; with"
        " --catalogue an .npy array of many. Left out: a real digit that no training has seen,"
        " degraded."
    ),
]

# The images.
Simulate = Annotated[
    bool,
    typer.Option(
        "--simulate", help="IMAGE is the truth: degrade it, then solve.", rich_help_panel=_FILES
    ),
]
Truth = Annotated[
    Path | None, typer.Option(help="The true image, to compare with.", rich_help_panel=_FILES)
]
Digit = Annotated[
    int,
    typer.Option(
        help="Where IMAGE is left out: which digit, 0 to 9.",
        min=0,
        max=9,
        rich_help_panel=_FILES,
    ),
]
Range = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--range",
        metavar="LOW HIGH",
        help="Black and white in the files; else 0 255 for 8 bit, -1 1 for floats.",
        rich_help_panel=_FILES,
    ),
]
Noise = Annotated[
    float,
    typer.Option(
        help="Standard deviation of the observation's noise; black is -1, white 1.",
        rich_help_panel=_FILES,
    ),
]

# Parts of an image.
Mask = Annotated[
    Path | None,
    typer.Option(
        help="PNG or .npy; white (1) is observed, black (0) hidden. (h, w) masks all channels"
        " alike, (h, w, c) and a picture in colours each on its own. fourier: which coefficients,"
        " in the order of numpy.fft.fft2, frequency zero at the top left.",
        rich_help_panel=_HIDING,
    ),
]
Hide = Annotated[
    str | None,
    typer.Option(
        help="left, right (the default), top, bottom, centre or random.", rich_help_panel=_HIDING
    ),
]
Box = Annotated[
    tuple[int, int, int, int] | None,
    typer.Option(
        metavar="ROW COLUMN HEIGHT WIDTH",
        help="Hide a box: its first row, first column, height and width, in pixels from 0.",
        rich_help_panel=_HIDING,
    ),
]
HideChannels = Annotated[
    str | None,
    typer.Option(
        help="Hide whole channels, by number from 0: 0,2. Alone, or besides one of the above.",
        rich_help_panel=_HIDING,
    ),
]
Keep = Annotated[
    float | None,
    typer.Option(
        help="--hide random, and fourier: the share that is observed, in (0, 1]; else 0.3.",
        rich_help_panel=_HIDING,
    ),
]

# Blur.
Width = Annotated[
    float | None,
    typer.Option(
        help="Standard deviation of a Gaussian, in pixels; else 2.", rich_help_panel=_BLUR
    ),
]
Motion = Annotated[
    float | None,
    typer.Option(
        help="Motion blur of this length in pixels, instead of the Gaussian.",
        rich_help_panel=_BLUR,
    ),
]
Angle = Annotated[
    float | None,
    typer.Option(
        help="--motion: its direction, in degrees from the horizontal; else 45.",
        rich_help_panel=_BLUR,
    ),
]
Kernel = Annotated[
    Path | None,
    typer.Option(
        help="Any 2-D filter, of odd height and width: an .npy array, taken as it is, or a grey"
        " PNG, divided by its sum.",
        rich_help_panel=_BLUR,
    ),
]
Wrap = Annotated[
    bool | None,
    typer.Option(
        "--wrap",
        help="--kernel: wrap around the borders; else outside the image is mid-grey.",
        rich_help_panel=_BLUR,
    ),
]

# Other operators.
Factor = Annotated[
    int | None,
    typer.Option(
        help="super-resolve: how many pixels become one, each way; else 4.",
        rich_help_panel=_OTHER,
    ),
]
Bicubic = Annotated[
    bool | None,
    typer.Option(
        "--bicubic",
        help="super-resolve: bicubic instead of block means.",
        rich_help_panel=_OTHER,
    ),
]
Mix = Annotated[
    Path | None,
    typer.Option(
        help="colourise: an .npy matrix (channels seen, channels); else their mean is seen.",
        rich_help_panel=_OTHER,
    ),
]
Rows = Annotated[
    Path | None,
    typer.Option(
        help="separable: an .npy matrix (any, height), applied to each column.",
        rich_help_panel=_OTHER,
    ),
]
Columns = Annotated[
    Path | None,
    typer.Option(
        help="separable: an .npy matrix (any, width), applied to each row.",
        rich_help_panel=_OTHER,
    ),
]
Matrix = Annotated[
    Path | None,
    typer.Option(
        help="dense: an .npy matrix (observations, pixels), applied to the image's values row by"
        " row, channels last.",
        rich_help_panel=_OTHER,
    ),
]

# The sampler.
Prior = Annotated[
    str,
    typer.Option(help="Name of a shipped prior, or a prior's folder.", rich_help_panel=_SAMPLER),
]
Caption = Annotated[
    str | None,
    typer.Option(
        help="What the image shows, where the prior is one of captions (`smcdiff train text`): the"
        " prior is then that of the caption.",
        rich_help_panel=_SAMPLER,
    ),
]
Proposal = Annotated[
    str,
    typer.Option(
        help="auto chooses from the problem's structure and says why; or a sampler's name:"
        " bootstrap, replacement, smcdiff, repaint, dps, pigdm, twisted, twisted-path,"
        " moment-matched, krylov-moment-matched, lanczos-moment-matched, mcgdiff, fps, ddrm, daps"
        " or rejuvenated.",
        rich_help_panel=_SAMPLER,
    ),
]
Unweighted = Annotated[
    bool,
    typer.Option(
        "--unweighted",
        help="Switch the weights off: the plain heuristic.",
        rich_help_panel=_SAMPLER,
    ),
]
Particles = Annotated[
    int | None,
    typer.Option(
        "--particles",
        "-n",
        help="Particles per chain; else 4 for twisted-path, and 64 for the others.",
        rich_help_panel=_SAMPLER,
    ),
]
Steps = Annotated[int, typer.Option(help="Reverse diffusion steps.", rich_help_panel=_SAMPLER)]
Chains = Annotated[
    int | None,
    typer.Option(
        help="Independent runs; their spread is the Monte-Carlo error. Else 4, and 64 for"
        " twisted-path where --particles is left out, too.",
        rich_help_panel=_SAMPLER,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Particles in the network at once, over all chains; else all. Fewer need less memory.",
        rich_help_panel=_SAMPLER,
    ),
]
Seed = Annotated[
    int,
    typer.Option(help="Of the random numbers.", min=0, max=LARGEST_SEED, rich_help_panel=_SAMPLER),
]

# The result.
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="New folder for posterior.nc and solution.png; else smcdiff-PROBLEM.",
        rich_help_panel=_RESULT,
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Write the run's state into this folder on the way; after a crash or Ctrl-C the same"
        " command goes on from there, to the same bits.",
        rich_help_panel=_RESULT,
    ),
]

# Catalogues.
Catalogue = Annotated[
    bool,
    typer.Option(
        "--catalogue",
        help="IMAGE is an .npy array with one observation after another along its first axis. It"
        " may be larger than memory. Each item's posterior becomes a file in --output.",
        rich_help_panel=_CATALOGUE,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="The share I of N of the catalogue, I from 0 to N - 1, for the jobs of an array.",
        rich_help_panel=_CATALOGUE,
    ),
]
ItemsPerBatch = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Observations in one compiled call; the last batch is filled up.",
        rich_help_panel=_CATALOGUE,
    ),
]
