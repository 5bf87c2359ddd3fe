"""Bayesian inverse problems with diffusion priors by Sequential Monte Carlo.

Write a NumPyro model in which one site has a distribution of `smcdiff.priors` (or of
`smcdiff.load_prior`), give it to `smcdiff.SMC`, and take the weighted posterior to ArviZ.
"""

from smcdiff import cascades as cascades
from smcdiff import diagnostics as diagnostics
from smcdiff import exact as exact
from smcdiff import moves as moves
from smcdiff import operators as operators
from smcdiff import priors as priors
from smcdiff import proposals as proposals
from smcdiff import shapes as shapes
from smcdiff import smc as smc
from smcdiff import text as text
from smcdiff import twists as twists
from smcdiff._version import __version__ as __version__
from smcdiff.base.module import Module as Module
from smcdiff.base.module import static as static
from smcdiff.calibration import Calibration as Calibration
from smcdiff.calibration import calibrate as calibrate
from smcdiff.cascades import Cascade as Cascade
from smcdiff.diffusion import flow as flow
from smcdiff.diffusion import kernels as kernels
from smcdiff.diffusion import laws as laws
from smcdiff.diffusion import schedules as schedules
from smcdiff.diffusion import thresholding as thresholding
from smcdiff.errors import DegeneracyWarning as DegeneracyWarning
from smcdiff.errors import InputError as InputError
from smcdiff.errors import SamplingError as SamplingError
from smcdiff.results.comparison import Comparison as Comparison
from smcdiff.results.comparison import compare as compare
from smcdiff.results.draws import Draws as Draws
from smcdiff.results.posterior import Posterior as Posterior
from smcdiff.sampler.particle_gibbs import ParticleGibbs as ParticleGibbs
from smcdiff.sampler.smc import SMC as SMC
from smcdiff.smc import particle_filter as particle_filter
from smcdiff.store.amortized import load_conditional as load_conditional
from smcdiff.store.classifier import load_classifier as load_classifier
from smcdiff.store.clip import load_clip as load_clip
from smcdiff.store.image_features import load_image_features as load_image_features
from smcdiff.store.prior import load_prior as load_prior
from smcdiff.store.prior import save_prior as save_prior
from smcdiff.store.shipped import list_priors as list_priors
from smcdiff.store.shipped import load_examples as load_examples
from smcdiff.store.twist import load_twist as load_twist
from smcdiff.text.load import load_text_encoder as load_text_encoder
