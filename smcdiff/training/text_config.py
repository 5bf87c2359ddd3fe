"""What defines a training on captioned pictures."""

from __future__ import annotations

import dataclasses

from smcdiff.errors import InputError
from smcdiff.networks.unet_condition import UNet2DConditionConfig
from smcdiff.training.config import TrainConfig

_IMAGEN_SKIP_SCALE = 2.0**-0.5


@dataclasses.dataclass(frozen=True)
class CaptionedTrainConfig(TrainConfig):
    """What every training on captioned pictures has.

    Noise levels are drawn around log-SNR -1.5 by default, further down than the middle of the
    cosine schedule: how many objects there are, and where, is decided while they are hardly seen.

    Attributes:
        encoder: name or folder of the text encoder, see `smcdiff.load_text_encoder`.
        captions: file of encoded captions, made where it is not there; None is one in the output
            folder.
        caption_key: of the objects in captions.json, where they are not texts.
        size: pixels a side, to which larger pictures are averaged; None leaves them as they are,
            and of shapes is 32.
        held_out: share of the captions of files that are held out, by their hashes, with all of
            their pictures.
    """

    weighting: str = "lognormal"
    log_snr_mean: float = -1.5
    log_snr_std: float = 2.5
    uniform_share: float = 0.2
    checkpoint_every: int = 200
    encoder: str = "minilm"
    captions: str | None = None
    caption_key: str = "caption"
    size: int | None = None
    held_out: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        if self.size is not None and self.size < 1:
            raise InputError(f"train: size is {self.size}; it must be at least 1")
        if not 0.0 < self.held_out < 1.0:
            raise InputError(
                f"train: held_out is {self.held_out}; it lies between 0 and 1, for example 0.05"
            )


@dataclasses.dataclass(frozen=True)
class TextTrainConfig(CaptionedTrainConfig):
    """What defines a training of a prior of captions.

    Attributes:
        caption_dropout: share of the pictures whose caption is hidden, tokens and pooled vector
            together, so that the network learns the unconditional prior as well.
        text_channels: of the tokens as the network attends to them.
        heads: of each attention.
        blocks: residual blocks of each resolution; None is ``layers`` at all of them.
        efficient: Imagen's Efficient U-Net, see `smcdiff.networks.unet_condition`.
    """

    steps: int = 20_000
    learning_rate: float = 1e-3
    channels: tuple[int, ...] = (32, 64, 128)
    caption_dropout: float = 0.1
    text_channels: int = 64
    heads: int = 4
    blocks: tuple[int, ...] | None = None
    efficient: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.refuse("a prior of captions (it has --caption-dropout)", "labels", "label_dropout")
        if not 0.0 <= self.caption_dropout <= 1.0:
            raise InputError(
                f"train: caption_dropout is {self.caption_dropout}; it lies in [0, 1], for example"
                " 0.1"
            )
        for name in ("text_channels", "heads"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"train: {name} is {value}; it must be at least 1")
        if wrong := [size for size in (self.text_channels, *self.channels) if size % self.heads]:
            raise InputError(
                f"train: {wrong[0]} channels do not divide into {self.heads} heads; give other"
                " --heads"
            )
        if self.blocks is not None and (
            len(self.blocks) != len(self.channels) or min(self.blocks) < 1
        ):
            raise InputError(
                f"train: blocks are {self.blocks}; give a number for each of the"
                f" {len(self.channels)} resolutions"
            )

    def text_network(
        self, shape: tuple[int, ...], width: int, pooled_width: int
    ) -> UNet2DConditionConfig:
        """The U-Net's configuration.

        Attention is at all resolutions but the first, if there are several.

        Args:
            shape: of a picture, (h, w, c).
            width: of the encoder's states.
            pooled_width: of its pooled vectors.
        """
        count = len(self.channels)
        self.check_size(shape, 2 ** (count if self.efficient else count - 1))
        depth = shape[2] * self.patch**2
        plain = min(1, count - 1)
        return UNet2DConditionConfig(
            shape[0] // self.patch, depth, depth, self.channels,
            self.layers if self.blocks is None else self.blocks,
            ("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",) * (count - plain),
            ("CrossAttnUpBlock2D",) * (count - plain) + ("UpBlock2D",) * plain,
            attention_head_dim=self.heads, cross_attention_dim=self.text_channels,
            encoder_hid_dim=width, class_embed_type="projection",
            projection_class_embeddings_input_dim=pooled_width,
            resample_first=self.efficient,
            skip_scale=_IMAGEN_SKIP_SCALE if self.efficient else 1.0,
        )  # fmt: skip
