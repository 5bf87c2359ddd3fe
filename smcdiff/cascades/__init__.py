"""Cascades: a prior at a low resolution, and priors that raise the resolution of its draws."""

from smcdiff.cascades.analytic import AnalyticUpsampler as AnalyticUpsampler
from smcdiff.cascades.augmentation import Augmentation as Augmentation
from smcdiff.cascades.augmentation import Gaussian as Gaussian
from smcdiff.cascades.augmentation import LowResolution as LowResolution
from smcdiff.cascades.augmentation import Truncated as Truncated
from smcdiff.cascades.cascade import Cascade as Cascade
