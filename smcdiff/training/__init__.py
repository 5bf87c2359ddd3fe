"""Training of learned priors by denoising score matching."""

from smcdiff.training.config import TrainConfig as TrainConfig
from smcdiff.training.loop import train as train
