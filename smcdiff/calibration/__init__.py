"""Calibration of a sampler on data that its model has simulated."""

from smcdiff.calibration.calibrate import calibrate as calibrate
from smcdiff.calibration.result import Calibration as Calibration
