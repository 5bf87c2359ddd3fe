"""Diffusion priors: NumPyro distributions that a reverse diffusion can reach."""

from smcdiff.priors.analytic import AnalyticPrior as AnalyticPrior
from smcdiff.priors.analytic import Gaussian as Gaussian
from smcdiff.priors.analytic import GaussianMixture as GaussianMixture
from smcdiff.priors.base import DiffusionDistribution as DiffusionDistribution
from smcdiff.priors.learned import DenoisingError as DenoisingError
from smcdiff.priors.learned import DiffusionPrior as DiffusionPrior
from smcdiff.priors.learned import EpsPrediction as EpsPrediction
from smcdiff.priors.learned import VPrediction as VPrediction
from smcdiff.priors.learned import X0Prediction as X0Prediction
