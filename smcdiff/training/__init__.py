"""Training of learned priors by denoising score matching, classifiers and amortised networks."""

from smcdiff.training.amortized import train_amortized as train_amortized
from smcdiff.training.classifier import train_classifier as train_classifier
from smcdiff.training.config import TrainConfig as TrainConfig
from smcdiff.training.prior import train as train
