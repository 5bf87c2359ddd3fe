"""A generic particle filter for Feynman-Kac models; it knows nothing of diffusions."""

from smcdiff.smc import resampling as resampling
from smcdiff.smc.checkpoint import Checkpoint as Checkpoint
from smcdiff.smc.conditional import ConditionalFilter as ConditionalFilter
from smcdiff.smc.conditional import PathModel as PathModel
from smcdiff.smc.conditional import Sweep as Sweep
from smcdiff.smc.devices import default_mesh as default_mesh
from smcdiff.smc.feynman_kac import FeynmanKac as FeynmanKac
from smcdiff.smc.filter import ParticleFilter as ParticleFilter
from smcdiff.smc.genealogy import count_founders as count_founders
from smcdiff.smc.genealogy import evidence_variance as evidence_variance
from smcdiff.smc.one_call import particle_filter as particle_filter
from smcdiff.smc.segments import Hooks as Hooks
from smcdiff.smc.segments import run_in_segments as run_in_segments
from smcdiff.smc.state import FilterResult as FilterResult
from smcdiff.smc.state import FilterState as FilterState
from smcdiff.smc.state import StepInfo as StepInfo
