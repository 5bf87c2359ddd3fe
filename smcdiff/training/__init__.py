"""Training of learned priors by denoising score matching, and of noise-conditional classifiers."""

from smcdiff.training.classifier import train_classifier as train_classifier
from smcdiff.training.config import TrainConfig as TrainConfig
from smcdiff.training.prior import train as train
