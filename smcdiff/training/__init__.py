"""Training of learned priors by denoising score matching."""

from smcdiff.training.train import TrainConfig as TrainConfig
from smcdiff.training.train import train as train
