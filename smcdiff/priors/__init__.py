"""Diffusion priors: NumPyro distributions that a reverse diffusion can reach."""

from smcdiff.diffusion.denoising_error import DenoisingError as DenoisingError
from smcdiff.priors.analytic import AnalyticPrior as AnalyticPrior
from smcdiff.priors.base import Prior as Prior
from smcdiff.priors.gaussians import Gaussian as Gaussian
from smcdiff.priors.gaussians import GaussianMixture as GaussianMixture
from smcdiff.priors.implicit_classifier import ImplicitClassifier as ImplicitClassifier
from smcdiff.priors.learned import DiffusionPrior as DiffusionPrior
from smcdiff.priors.predictions import EDMPrediction as EDMPrediction
from smcdiff.priors.predictions import EpsPrediction as EpsPrediction
from smcdiff.priors.predictions import Prediction as Prediction
from smcdiff.priors.predictions import VPrediction as VPrediction
from smcdiff.priors.predictions import X0Prediction as X0Prediction
from smcdiff.priors.product import Product as Product
