"""Bayesian inverse problems with diffusion priors by Sequential Monte Carlo."""

from smcdiff import kernels as kernels
from smcdiff import priors as priors
from smcdiff import schedules as schedules
