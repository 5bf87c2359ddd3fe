"""Bayesian inverse problems with diffusion priors by Sequential Monte Carlo.

Write a NumPyro model in which one site has a distribution of `smcdiff.priors` (or of
`smcdiff.load_prior`), give it to `smcdiff.SMC`, and take the weighted posterior to ArviZ.
"""

from smcdiff import exact as exact
from smcdiff import flow as flow
from smcdiff import kernels as kernels
from smcdiff import operators as operators
from smcdiff import priors as priors
from smcdiff import proposals as proposals
from smcdiff import schedules as schedules
from smcdiff import smc as smc
from smcdiff.conditional import load_classifier as load_classifier
from smcdiff.conditional import load_conditional as load_conditional
from smcdiff.errors import InputError as InputError
from smcdiff.errors import SamplingError as SamplingError
from smcdiff.inference import SMC as SMC
from smcdiff.posterior import Posterior as Posterior
from smcdiff.smc import particle_filter as particle_filter
from smcdiff.version import __version__ as __version__
from smcdiff.zoo import list_priors as list_priors
from smcdiff.zoo import load_examples as load_examples
from smcdiff.zoo import load_prior as load_prior
