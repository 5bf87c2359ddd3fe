"""What defines a training of towers of pictures and captions."""

from __future__ import annotations

import dataclasses

from smcdiff.errors import InputError
from smcdiff.networks._clip import ClipConfig
from smcdiff.training.text_config import CaptionedTrainConfig

_OF_NOISE = ("weighting", "log_snr_mean", "log_snr_std", "uniform_share")


@dataclasses.dataclass(frozen=True)
class ClipTrainConfig(CaptionedTrainConfig):
    """What defines a training of towers of pictures and captions.

    Attributes:
        noise_conditional: pictures are noisy, at the levels that a prior is trained at, and the
            network sees the level; else they are clean.
        negatives: captions that differ from a picture's by one word, which it is told apart from
            beside the captions of the batch; where captions are of no grammar there are none.
        features: entries of the unit vectors.
        hidden: units of the dense layers of both towers.
        text_channels: of the tokens as they are attended to.
        heads: of that attention.
    """

    steps: int = 10_000
    channels: tuple[int, ...] = (32, 64, 128)
    learning_rate: float = 1e-3
    noise_conditional: bool = False
    negatives: int = 8
    features: int = 128
    hidden: int = 256
    text_channels: int = 64
    heads: int = 8

    def __post_init__(self):
        super().__post_init__()
        self.refuse("clip", "labels", "label_dropout", "init", "sample_every", "prediction")
        if not self.noise_conditional:
            self.refuse("clip without --noise-conditional", *_OF_NOISE)
        if self.batch_size < 2:
            raise InputError(
                "train: batch_size is 1; pairs are told apart from others of the batch"
            )
        for name in ("features", "hidden", "text_channels", "heads"):
            if getattr(self, name) < 1:
                raise InputError(f"train: {name} is {getattr(self, name)}; it must be at least 1")
        if self.negatives < 0:
            raise InputError(f"train: negatives is {self.negatives}; it must be 0 or more")
        if self.text_channels % self.heads:
            raise InputError(
                f"train: {self.text_channels} text channels do not divide into {self.heads} heads;"
                " give other --heads"
            )

    def towers(self, shape: tuple[int, ...], width: int, pooled_width: int) -> ClipConfig:
        """The network's configuration.

        Args:
            shape: of a picture, (h, w, c).
            width: of the encoder's states.
            pooled_width: of its pooled vectors.
        """
        return ClipConfig(
            shape, self.network(shape), self.patch, width, pooled_width, self.hidden,
            self.features, self.text_channels, self.heads,
        )  # fmt: skip
