"""The sampler: a problem, a proposal and the particle filter put together."""

from smcdiff.sampler.smc import SMC as SMC
