"""A generic particle filter for Feynman-Kac models; it knows nothing of diffusions."""

from smcdiff.smc import resampling as resampling
from smcdiff.smc.feynman_kac import FeynmanKac as FeynmanKac
from smcdiff.smc.filter import particle_filter as particle_filter
from smcdiff.smc.genealogy import count_founders as count_founders
from smcdiff.smc.genealogy import evidence_variance as evidence_variance
from smcdiff.smc.result import FilterResult as FilterResult
from smcdiff.smc.result import StepInfo as StepInfo
