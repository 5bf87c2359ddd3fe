"""What defines a training of an upsampler."""

from __future__ import annotations

import dataclasses

from smcdiff.errors import InputError
from smcdiff.networks.unet_condition import UNet2DConditionConfig
from smcdiff.training.text_config import TextTrainConfig


@dataclasses.dataclass(frozen=True)
class UpsamplerTrainConfig(TextTrainConfig):
    """What defines a training of an upsampler; options of captions count where there are some.

    Attributes:
        size: pixels a side of the high resolution, to which larger pictures are averaged; None
            leaves them as they are, and of shapes is 64.
        factor: pixels of the high resolution for one of the low, each way.
        log_snr: of the low resolution's noise where there is most of it. Levels are drawn uniformly
            in the cosine schedule's time, from no noise to there.
        captioned: learn with captions, too.
    """

    steps: int = 12_000
    channels: tuple[int, ...] = (48, 96, 96)
    patch: int = 4
    weighting: str = "uniform"
    factor: int = 2
    log_snr: float = 0.0
    captioned: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.refuse("an upsampler", "init", "efficient", "blocks")
        if self.factor < 2:
            raise InputError(f"train: factor is {self.factor}; it must be at least 2")
        if not -10.0 <= self.log_snr <= 10.0:
            raise InputError(
                f"train: log_snr is {self.log_snr}; it lies in [-10, 10], for example 0"
            )

    def low_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the low resolution of a picture of (h, w, c).

        Raises:
            InputError: a picture that does not divide.
        """
        height, width, channels = shape
        if height % self.factor or width % self.factor:
            raise InputError(
                f"train: images of {height} x {width} do not divide by the factor {self.factor};"
                " give another --factor or --size"
            )
        return height // self.factor, width // self.factor, channels

    def upsampling_network(
        self, shape: tuple[int, ...], widths: tuple[int, int] | None
    ) -> UNet2DConditionConfig:
        """The U-Net's configuration, with attention in the middle only.

        Args:
            shape: of a picture of the high resolution, (h, w, c).
            widths: of the encoder's states and of its pooled vectors; None without captions.
        """
        count = len(self.channels)
        self.check_size(shape, 2 ** (count - 1))
        depth = shape[2] * self.patch**2
        width, pooled_width = widths or (None, None)
        return UNet2DConditionConfig(
            shape[0] // self.patch, 2 * depth, depth, self.channels, self.layers,
            ("DownBlock2D",) * count, ("UpBlock2D",) * count,
            attention_head_dim=self.heads, cross_attention_dim=self.text_channels,
            encoder_hid_dim=width, class_embed_type=None if widths is None else "projection",
            projection_class_embeddings_input_dim=pooled_width,
            time_cond_proj_dim=self.channels[0],
        )  # fmt: skip
