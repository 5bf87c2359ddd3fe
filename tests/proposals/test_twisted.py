"""The twist of a nonlinear mean: consistent, and better widened than plain."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import SMC, priors, proposals

PRIOR = priors.Gaussian(jnp.array([0.5, -0.5]), jnp.array([[1.0, 0.4], [0.4, 0.6]]))


def _norm(y=None):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(jnp.sqrt(jnp.sum(x**2) + 1e-12), 0.3), obs=y)


def _log_evidence(y):
    axis = jnp.linspace(-6.0, 6.0, 601)
    points = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    likelihood = dist.Normal(jnp.linalg.norm(points, axis=1), 0.3).log_prob(y)
    total = jax.nn.logsumexp(PRIOR.log_prob(points) + likelihood)
    return float(total + 2 * jnp.log(axis[1] - axis[0]))


@pytest.fixture(scope="module")
def ratios():
    """Z_hat / Z of 64 chains, widened and plain."""
    found = {}
    for widen in (True, False):
        smc = SMC(_norm, proposals.Twisted(widen=widen), num_particles=64, num_steps=32,
                  num_chains=64, progress_bar=False)  # fmt: skip
        log_evidence = smc.run(jax.random.key(0), y=0.2).log_evidence
        found[widen] = np.exp(log_evidence - _log_evidence(0.2))
    return found


def test_evidence_of_a_nonlinear_mean(ratios):
    ratio = ratios[True]
    assert abs(ratio.mean() - 1.0) < 3 * ratio.std() / 8  # 64 chains


def test_widened_twist_varies_less(ratios):
    assert ratios[True].std() < 0.7 * ratios[False].std()
