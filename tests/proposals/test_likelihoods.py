"""Kinds of likelihood with the default settings, against importance sampling from the prior.

The problems are those of experiments/likelihoods in two dimensions.
"""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from smcdiff import SMC

FOLDER = str(Path(__file__).parents[2] / "experiments" / "likelihoods")
sys.path.append(FOLDER)
from importance import importance_sampling  # noqa: E402
from likelihood_kinds import KINDS, make  # noqa: E402

sys.path.remove(FOLDER)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@jax.numpy_rank_promotion("allow")  # NumPyro's MixtureSameFamily draws so
def test_evidence(name):
    problem = make(name, 2)
    truth = importance_sampling(problem, 200_000)
    smc = SMC(problem.model, num_particles=500, num_steps=40, num_chains=16, progress_bar=False)
    posterior = smc.run(jax.random.key(0), data=problem.data)
    ratio = np.exp(np.asarray(posterior.log_evidence) - truth.log_evidence)
    standard_error = np.hypot(ratio.std(ddof=1) / 4.0, truth.error)
    assert standard_error < 0.06
    # 3.5 of 15 degrees of freedom: by chance 0.3 % of the time (fixed key).
    assert abs(ratio.mean() - 1.0) < 3.5 * standard_error + 1e-3
