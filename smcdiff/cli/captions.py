"""``smcdiff captions``: the captions of a data set, listed, or encoded once for training."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from smcdiff import shapes
from smcdiff.base._files import made_folder
from smcdiff.base._progress import ProgressBar
from smcdiff.cli.interrupt import interruptible
from smcdiff.cli.output import REMEDY
from smcdiff.errors import InputError, did_you_mean
from smcdiff.text.captions import EncodedCaptions
from smcdiff.text.load import load_text_encoder
from smcdiff.training._captioned import SHAPES, listed_captions

_ENCODER = "minilm"


def captions(
    data: Annotated[
        str, typer.Argument(help="shapes, or a .json file of captions, as of `smcdiff train text`.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Encode them into this new file (safetensors)."
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="With --output: minilm, or a text encoder's folder.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="Of shapes, to list: train, held-out or unseen-combination; else all."),
    ] = None,
    caption_key: Annotated[
        str, typer.Option(help="Of the objects in the .json file, if they are not texts.")
    ] = "caption",
) -> None:
    """List captions, one a line; or encode them once, for training.

    With --output a frozen text encoder reads each caption once, and the file holds what it makes of
    them, and which encoder it was. `smcdiff train text`, `clip` and `upsampler` read it with
    --captions FILE, and then need no encoder.

    Examples: `smcdiff captions shapes --part held-out`; `smcdiff captions shapes -o
    shapes.safetensors`, then `smcdiff train text shapes --captions shapes.safetensors -o
    my-shapes`.
    """
    if output is None and encoder is not None:
        raise InputError("--encoder goes with --output, the file to encode into; add it")
    if output is not None and part is not None:
        raise InputError("--part lists; a file for training holds all captions: leave it out")
    texts = _texts(data, part, caption_key)
    if output is None:
        _print(texts)
    else:
        _encode(texts, output, encoder or _ENCODER)


def _texts(data: str, part: str | None, key: str) -> list[str]:
    """The captions that are named, each once."""
    parts = [one.value for one in shapes.Split]
    if part is not None and part not in parts:
        raise InputError(f"--part is '{part}'; {did_you_mean(part, parts)}")
    if data == SHAPES:
        return list(shapes.captions(None if part is None else shapes.Split(part)))
    if part is not None:
        raise InputError(f"--part is of the captions of shapes, not of {data}; leave it out")
    return list(dict.fromkeys(listed_captions(Path(data), key)))


def _print(texts: list[str]) -> None:
    try:
        typer.echo("\n".join(texts))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _encode(texts: list[str], output: Path, encoder: str) -> None:
    if os.path.lexists(output):
        raise InputError(f"{output} exists; nothing is overwritten: {REMEDY}")
    loaded = load_text_encoder(encoder)
    with made_folder(output.parent, REMEDY):
        encoded = interruptible(
            lambda progress: EncodedCaptions.encode(loaded, texts, progress_bar=progress),
            ProgressBar("Encoding", unit="captions"),
        )
        encoded.save(output)
    size = output.stat().st_size / 1e6
    typer.echo(f"{len(texts)} captions, encoded by '{encoder}', are in {output} ({size:.1f} MB)")
