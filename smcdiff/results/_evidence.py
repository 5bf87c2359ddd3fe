"""The log evidence in words, with its standard error or the reason why there is none."""

from __future__ import annotations

import numpy as np

from smcdiff.results._particles import WeightedParticles
from smcdiff.results._weighted import FEW_CHAINS
from smcdiff.smc.genealogy import FEW_FOUNDERS

_SURE = 0.5
"""Nat: a larger error is told too small by founders, see `smcdiff.smc.genealogy`."""


def evidence_in_words(particles: WeightedParticles) -> str:
    """The pooled log evidence, as in "12.34 +- 0.21", or with what hinders its standard error.

    Args:
        particles: the record of a run.
    """
    if not particles.weighted:
        return "none, weights were off"
    value, error = particles.pooled_log_evidence, particles.pooled_log_evidence_se
    if not np.isnan(error):
        from_founders = particles.log_evidence.size < FEW_CHAINS
        more = " or more" if from_founders and error > _SURE else ""
        return f"{value:.2f} +- {error:.2f}{more}"
    return f"{value:.2f}, its error cannot be told: {_hindrance(particles)}"


def _hindrance(particles: WeightedParticles) -> str:
    """Why neither the chains nor their founders tell the standard error."""
    chains = particles.log_evidence.size
    if chains >= FEW_CHAINS:
        return f"the chains lie {np.ptp(particles.log_evidence):.1f} nat apart"
    founders = int(particles.num_founders[:, -1].min())
    if founders < FEW_FOUNDERS and np.any(np.isnan(particles.log_evidence_se)):
        left = "1 founder is" if founders == 1 else f"{founders} founders are"
        return f"{left} left; try {FEW_CHAINS} chains, or more particles"
    return f"the founders of one chain do not tell it; try {FEW_CHAINS} chains"
