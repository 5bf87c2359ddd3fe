"""What defines a training run, and the command line that repeats it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import optax

from smcdiff.errors import InputError, did_you_mean
from smcdiff.networks.unet import UNet2DConfig
from smcdiff.priors import Prediction
from smcdiff.store._entries import read_prediction
from smcdiff.training._weighting import LogNormal, MinSNR, Uniform, Weighting

_LARGEST = 2**31 - 1
_POSITIVE = ("steps", "batch_size", "patch", "layers", "checkpoint_every", "sample_every")
_PREDICTIONS = ("v", "eps", "x0")
_SHOWN = ("steps", "channels")
"""Always in a card's command, for the commands have defaults of their own."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What defines a training run.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step.
        learning_rate: peak, after 100 steps of warm-up.
        ema: decay of the exponential moving average of the weights.
        seed: of initialisation, order and noise.
        channels: channels of each resolution.
        layers: resnets a resolution.
        patch: pixels folded into channels, each way.
        prediction: "v", "eps" or "x0".
        weighting: how much each noise level counts: "uniform", "min-snr" or "lognormal".
        log_snr_mean: of the levels drawn, with "lognormal".
        log_snr_std: their standard deviation, with "lognormal".
        uniform_share: share of the levels drawn at uniform times nevertheless, with "lognormal".
        schedule: of the learning rate, after its warm-up: "cosine", "linear" or "constant".
        checkpoint_every: steps between checkpoints.
        sample_every: steps between sample grids.
        labels: learn a class-conditional prior too, from the data's labels.
        label_dropout: share of the images whose label is hidden, so that the network learns the
            unconditional prior as well (Ho and Salimans 2022).
        init: name or folder of a finished prior whose weights to start from, or None.
        description: one line for the model card.
        licence: of the data, for the model card.
    """

    steps: int = 4000
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    ema: float = 0.999
    seed: int = 0
    channels: tuple[int, ...] = (32, 64)
    layers: int = 1
    patch: int = 2
    prediction: str = "v"
    weighting: str = "uniform"
    log_snr_mean: float = 2.4
    log_snr_std: float = 2.4
    uniform_share: float = 0.0
    schedule: str = "cosine"
    checkpoint_every: int = 500
    sample_every: int = 1000
    labels: bool = False
    label_dropout: float = 0.15
    init: str | None = None
    description: str = ""
    licence: str = ""

    def __post_init__(self):
        for name in _POSITIVE:
            if not 1 <= getattr(self, name) <= _LARGEST:
                raise InputError(
                    f"train: {name} is {getattr(self, name)}; it must be at least 1, and at most"
                    f" {_LARGEST}"
                )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"train: seed is {self.seed}; it must lie in 0 to {2**32 - 1}")
        groups, heads = UNet2DConfig.norm_num_groups, UNet2DConfig.attention_head_dim
        wrong = [size for size in self.channels if not 1 <= size <= _LARGEST or size % groups]
        if wrong or not self.channels or self.channels[-1] % heads:
            raise InputError(
                f"train: channels are {self.channels}; give multiples of {groups}, the last of"
                f" {heads}, for example 32,64"
            )
        if not 0.0 < self.learning_rate <= 1.0:
            raise InputError(
                f"train: learning_rate is {self.learning_rate}; it must lie in (0, 1], for example"
                " 0.0015"
            )
        if not 0.0 <= self.ema < 1.0:
            raise InputError(f"train: ema is {self.ema}; it must lie in [0, 1), for example 0.999")
        if not 0.0 < self.label_dropout < 1.0:
            raise InputError(
                f"train: label_dropout is {self.label_dropout}; it must lie between 0 and 1, so"
                " that the network learns with labels and without"
            )
        for name, choices in (
            ("prediction", _PREDICTIONS),
            ("weighting", ("uniform", "min-snr", "lognormal")),
            ("schedule", ("cosine", "linear", "constant")),
        ):
            if getattr(self, name) not in choices:
                hint = did_you_mean(getattr(self, name), choices)
                raise InputError(f"train: {name} is '{getattr(self, name)}'; {hint}")
        if not 0.0 <= self.uniform_share < 1.0:
            raise InputError(f"train: uniform_share is {self.uniform_share}; it lies in [0, 1)")
        if not 0.05 <= self.log_snr_std <= 100.0:
            raise InputError(f"train: log_snr_std is {self.log_snr_std}; it lies in [0.05, 100]")
        if not -20.0 <= self.log_snr_mean <= 20.0:
            raise InputError(f"train: log_snr_mean is {self.log_snr_mean}; it lies in [-20, 20]")

    def refuse(self, kind: str, *names: str) -> None:
        """Raises ``InputError`` where an option is set that this kind of training does not have."""
        for field in dataclasses.fields(self):
            if field.name in names and getattr(self, field.name) != field.default:
                raise InputError(f"train: {field.name} is not an option of {kind}; leave it out")

    def target(self) -> Prediction:
        """What the network learns."""
        return read_prediction(self.prediction)

    def level_weighting(self) -> Weighting:
        """How much each noise level counts."""
        if self.weighting == "min-snr":
            return MinSNR()
        if self.weighting == "lognormal":
            return LogNormal(self.log_snr_mean, self.log_snr_std, self.uniform_share)
        return Uniform()

    def optimiser(self) -> optax.GradientTransformation:
        """Adam with clipped gradients; its rate warms up, then follows the schedule."""
        warm, peak = min(100, self.steps // 2), self.learning_rate
        rest, last = self.steps - warm, min(1e-5, peak)
        after = {
            "cosine": optax.cosine_decay_schedule(peak, rest, last / peak),
            "linear": optax.linear_schedule(peak, last, rest),
            "constant": optax.constant_schedule(peak),
        }[self.schedule]
        rate = optax.join_schedules([optax.linear_schedule(0.0, peak, warm), after], [warm])
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def network(self, shape: tuple[int, ...], num_classes: int = 0) -> UNet2DConfig:
        """The U-Net's configuration for images of (h, w, c); with classes, one more is "none"."""
        self.check_size(shape, 2 ** (len(self.channels) - 1))
        height, _, channels = shape
        depth = channels * self.patch**2
        plain = len(self.channels) - 1
        return UNet2DConfig(
            height // self.patch, depth, depth, self.channels, self.layers,
            ("DownBlock2D",) * plain + ("AttnDownBlock2D",),
            ("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
            num_class_embeds=num_classes + 1 if num_classes else None,
        )  # fmt: skip

    def check_size(self, shape: tuple[int, ...], halvings: int) -> None:
        """Raises ``InputError`` where images do not divide by the patch times ``halvings``."""
        height, width, _ = shape
        factor = self.patch * halvings
        if height % factor or width % factor:
            raise InputError(
                f"train: images of {height} x {width} do not divide by {factor} (the patch, times 2"
                " for each resolution after the first); pad them, or give fewer --channels"
            )

    def command(self, data: Path, folder: Path, kind: str | None = None) -> str:
        """The command line that repeats this run; ``kind`` follows ``smcdiff train``."""
        words = ["smcdiff", "train"] if kind is None else ["smcdiff", "train", kind]
        words += [str(data), "--output", str(folder)]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is True:
                words.append(f"--{field.name.replace('_', '-')}")
            elif value != field.default or field.name in _SHOWN:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                words += [f"--{field.name.replace('_', '-')}", text]
        return shlex.join(words)
