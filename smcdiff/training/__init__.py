"""Training: priors, of captions too, upsamplers, CLIP, classifiers, amortised networks, twists."""

from smcdiff.training.amortized import train_amortized as train_amortized
from smcdiff.training.classifier import train_classifier as train_classifier
from smcdiff.training.clip import train_clip as train_clip
from smcdiff.training.clip_config import ClipTrainConfig as ClipTrainConfig
from smcdiff.training.config import TrainConfig as TrainConfig
from smcdiff.training.prior import train as train
from smcdiff.training.text import train_text as train_text
from smcdiff.training.text_config import TextTrainConfig as TextTrainConfig
from smcdiff.training.twist import train_twist as train_twist
from smcdiff.training.upsampler import train_upsampler as train_upsampler
from smcdiff.training.upsampler_config import UpsamplerTrainConfig as UpsamplerTrainConfig
