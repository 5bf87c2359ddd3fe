"""Diagnostics of twists, weights and draws, and the metrics of the experiments."""

from smcdiff.diagnostics import contrast as contrast
from smcdiff.diagnostics import distances as distances
from smcdiff.diagnostics import leave_one_out as leave_one_out
from smcdiff.diagnostics import metrics as metrics
from smcdiff.diagnostics import stein as stein
from smcdiff.diagnostics import weights as weights
from smcdiff.diagnostics.distances import frechet_distance as frechet_distance
from smcdiff.diagnostics.distances import kernel_distance as kernel_distance
