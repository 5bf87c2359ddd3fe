"""What defines a training of towers of pictures and captions."""

from __future__ import annotations

import dataclasses

from smcdiff.errors import InputError, did_you_mean
from smcdiff.networks._clip import ClipConfig
from smcdiff.store._picture_reader import EFFICIENTNET
from smcdiff.training.text_config import CaptionedTrainConfig

_OF_NOISE = ("weighting", "log_snr_mean", "log_snr_std", "uniform_share")
_OF_A_UNET = ("channels", "layers", "patch")


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
        image_features: "efficientnet-lite0" for a tower of dense layers on frozen features of the
            pictures (`smcdiff.load_image_features`); None for a U-Net's descending blocks.
        image_features_file: where those of all pictures of files are kept, made where it is not
            there; None is nowhere, so that a run that goes on computes them again.
        dropout: share of the entries of the frozen vectors, of pictures and of captions, that are
            hidden at each step, so that fewer pairs are learned by heart.
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
    image_features: str | None = None
    image_features_file: str | None = None
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self.refuse("clip", "labels", "label_dropout", "init", "sample_every", "prediction")
        self._check_image_features()
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"train: dropout is {self.dropout}; it lies in [0, 1), as 0.5 does")
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

    def _check_image_features(self) -> None:
        if self.image_features is None:
            self.refuse("clip without --image-features", "image_features_file")
            return
        if self.image_features != EFFICIENTNET:
            hint = did_you_mean(self.image_features, [EFFICIENTNET])
            raise InputError(f"train: image_features is '{self.image_features}'; {hint}")
        if self.noise_conditional:
            raise InputError(
                "train: image_features and noise_conditional exclude each other, for the frozen"
                " features were trained on clean pictures only; leave one of them out"
            )
        self.refuse("clip with --image-features", *_OF_A_UNET)

    def towers(
        self, shape: tuple[int, ...], width: int, pooled_width: int, image_width: int | None = None
    ) -> ClipConfig:
        """The network's configuration.

        Args:
            shape: of a picture, (h, w, c).
            width: of the encoder's states.
            pooled_width: of its pooled vectors.
            image_width: entries of the frozen features of a picture; None is a U-Net.
        """
        is_unet = image_width is None
        return ClipConfig(
            shape, self.network(shape) if is_unet else None, self.patch, width, pooled_width,
            self.hidden, self.features, self.text_channels, self.heads, image_width,
        )  # fmt: skip
