"""Noise schedules x_t = alpha(t) x_0 + sigma(t) eps, their noise levels, and grids of steps."""

from smcdiff.diffusion.schedules.base import TIMESTEPS as TIMESTEPS
from smcdiff.diffusion.schedules.base import Level as Level
from smcdiff.diffusion.schedules.base import Schedule as Schedule
from smcdiff.diffusion.schedules.continuous import Cosine as Cosine
from smcdiff.diffusion.schedules.continuous import LinearBeta as LinearBeta
from smcdiff.diffusion.schedules.continuous import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from smcdiff.diffusion.schedules.continuous import VarianceExploding as VarianceExploding
from smcdiff.diffusion.schedules.grids import Focused as Focused
from smcdiff.diffusion.schedules.grids import Grid as Grid
from smcdiff.diffusion.schedules.grids import Karras as Karras
from smcdiff.diffusion.schedules.grids import UniformLogSNR as UniformLogSNR
from smcdiff.diffusion.schedules.grids import UniformSqrtAlphaBar as UniformSqrtAlphaBar
from smcdiff.diffusion.schedules.grids import UniformTime as UniformTime
from smcdiff.diffusion.schedules.tabulated import Tabulated as Tabulated
from smcdiff.diffusion.schedules.tabulated import from_betas as from_betas
