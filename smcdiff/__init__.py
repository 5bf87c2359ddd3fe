"""Bayesian inverse problems with diffusion priors by Sequential Monte Carlo.

Write a NumPyro model in which one site has a distribution of `smcdiff.priors` (or of
`smcdiff.load_prior`), give it to `smcdiff.SMC`, and take the weighted posterior to ArviZ.
"""

from smcdiff import exact as exact
from smcdiff import operators as operators
from smcdiff import priors as priors
from smcdiff import proposals as proposals
from smcdiff import smc as smc
from smcdiff._version import __version__ as __version__
from smcdiff.base.module import Module as Module
from smcdiff.base.module import static as static
from smcdiff.diffusion import kernels as kernels
from smcdiff.diffusion import schedules as schedules
from smcdiff.errors import InputError as InputError
from smcdiff.errors import SamplingError as SamplingError
from smcdiff.priors import flow as flow
from smcdiff.results.posterior import Posterior as Posterior
from smcdiff.sampler.smc import SMC as SMC
from smcdiff.smc import particle_filter as particle_filter
from smcdiff.store.conditional import load_classifier as load_classifier
from smcdiff.store.conditional import load_conditional as load_conditional
from smcdiff.store.zoo import list_priors as list_priors
from smcdiff.store.zoo import load_examples as load_examples
from smcdiff.store.zoo import load_prior as load_prior
