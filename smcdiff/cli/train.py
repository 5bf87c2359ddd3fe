"""The commands of ``smcdiff train``; those on captioned pictures are in `train_captioned`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from smcdiff.cli import train_options as opt
from smcdiff.cli.train_captioned import clip, text, upsampler


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
    steps: opt.Steps = 4000,
    batch_size: opt.Images = 64,
    learning_rate: opt.LearningRate = 1.5e-3,
    ema: opt.Ema = 0.999,
    seed: opt.Seed = 0,
    channels: opt.Channels = "32,64",
    layers: opt.Layers = 1,
    patch: opt.Patch = 2,
    prediction: opt.Prediction = "v",
    weighting: opt.Weighting = "uniform",
    log_snr_mean: opt.LogSnrMean = 2.4,
    log_snr_std: opt.LogSnrStd = 2.4,
    uniform_share: opt.UniformShare = 0.0,
    schedule: opt.Schedule = "cosine",
    checkpoint_every: opt.CheckpointEvery = 500,
    sample_every: opt.SampleEvery = 1000,
    labels: Annotated[
        bool, typer.Option("--labels", help="Learn a prior for each class of the data too.")
    ] = False,
    label_dropout: Annotated[
        float, typer.Option(help="Share of the images whose class is hidden.")
    ] = 0.15,
    init: opt.Init = None,
    description: opt.Description = "",
    licence: opt.Licence = "",
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
        channels=opt.channels_of(channels), layers=layers, patch=patch, prediction=prediction,
        weighting=weighting, log_snr_mean=log_snr_mean, log_snr_std=log_snr_std,
        uniform_share=uniform_share, schedule=schedule,
        checkpoint_every=checkpoint_every, sample_every=sample_every, labels=labels,
        label_dropout=label_dropout, init=init, description=description, licence=licence,
    )  # fmt: skip
    folder = opt.listening(
        output, lambda progress: train_prior(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The prior is in {folder}")


app.command("text")(text)
app.command("upsampler")(upsampler)
app.command("clip")(clip)


@app.command("classifier")
def classifier(
    data: Annotated[Path, typer.Argument(help="An .npz of uint8 images and their labels, from 0.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the classifier; a killed run resumes.")
    ],
    steps: opt.Steps = 3000,
    batch_size: opt.Images = 64,
    learning_rate: opt.LearningRate = 1.5e-3,
    seed: opt.Seed = 0,
    channels: opt.Channels = "16,32",
    layers: opt.Layers = 1,
    patch: opt.Patch = 2,
    checkpoint_every: opt.CheckpointEvery = 500,
    description: opt.Description = "",
    licence: opt.Licence = "",
) -> None:
    """Learn a classifier of noisy images, for classifier guidance.

    The folder holds config.json, model.safetensors and card.md, and is what smcdiff.load_classifier
    takes. After Ctrl-C or a crash the same command goes on from the last checkpoint.

    Example: `smcdiff train classifier digits.npz -o my-classifier`, with arrays images and labels.
    """
    from smcdiff.training import TrainConfig, train_classifier

    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed,
        channels=opt.channels_of(channels), layers=layers, patch=patch,
        checkpoint_every=checkpoint_every, description=description, licence=licence,
    )  # fmt: skip
    folder = opt.listening(
        output, lambda progress: train_classifier(data, output, config, progress_bar=progress)
    )
    typer.echo(f"The classifier is in {folder}")


@app.command("amortized")
def amortized(
    model: opt.Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the network; a killed run resumes.")
    ],
    data: opt.Data = None,
    steps: opt.Steps = 4000,
    batch_size: Annotated[int, typer.Option(help="Pairs per step.")] = 64,
    learning_rate: opt.LearningRate = 1.5e-3,
    seed: opt.Seed = 0,
    channels: opt.Channels = "32,64",
    layers: opt.Layers = 1,
    patch: opt.Patch = 2,
    checkpoint_every: opt.CheckpointEvery = 500,
    description: opt.Description = "",
    licence: opt.Licence = "",
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
        channels=opt.channels_of(channels), layers=layers, patch=patch,
        checkpoint_every=checkpoint_every, description=description, licence=licence,
    )  # fmt: skip
    folder = _on_pairs(train_amortized, model, output, config, data)
    typer.echo(f"The network is in {folder}")


@app.command("twist")
def twist(
    model: opt.Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the twist; a killed run resumes.")
    ],
    data: opt.Data = None,
    steps: opt.Steps = 4000,
    batch_size: Annotated[
        int, typer.Option(help="Pairs per step, each told apart from all others.")
    ] = 128,
    learning_rate: opt.LearningRate = 1.5e-3,
    seed: opt.Seed = 0,
    channels: opt.Channels = "32,64",
    layers: Annotated[
        int, typer.Option(help="Residual layers, or for images blocks per resolution.")
    ] = 1,
    patch: opt.Patch = 2,
    checkpoint_every: opt.CheckpointEvery = 500,
    description: opt.Description = "",
    licence: opt.Licence = "",
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
        channels=opt.channels_of(channels), layers=layers, patch=patch,
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

    return opt.listening(output, run)
