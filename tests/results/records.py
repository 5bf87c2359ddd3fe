"""Posteriors made without a run: exact where that is wanted, and of any weights."""

import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import Posterior

Y = np.array([1.0, -1.0], np.float32)
NOISE = 0.5


def record(log_weights=None, **fields):
    """A healthy run (two chains of 100 particles, three steps), but for what is given."""
    log_weights = np.zeros((2, 100)) if log_weights is None else np.asarray(log_weights, float)
    log_weights = log_weights - np.logaddexp.reduce(log_weights, axis=1, keepdims=True)
    chains, particles = log_weights.shape
    healthy = {
        "samples": {"x": np.zeros((chains, particles, 3))},
        "log_weights": log_weights,
        "log_evidence": np.linspace(-1.0, -1.1, chains),
        "log_evidence_se": np.full(chains, 0.07),
        "ess": np.full((chains, 4), 0.9 * particles),
        "founders": np.tile(np.arange(particles), (chains, 1)),
        "num_founders": np.full((chains, 4), particles),
        "log_evidence_increments": np.zeros((chains, 4)),
        "resampled": np.zeros((chains, 4), bool),
        "log_snr": np.array([-8.0, -2.0, 3.0, np.inf]),
        "pointwise_log_likelihood": {},
        "observed": {},
        "weighted": True,
    }
    return Posterior(**{**healthy, **fields})


def model(y=None):
    """Prior N(0, I_2); the posterior given `Y` is N(0.8 Y, 0.2 I)."""
    x = numpyro.sample("x", dist.Normal(np.zeros(2, np.float32), 1.0).to_event(1))
    numpyro.deterministic("energy", (x**2).sum())
    numpyro.sample("y", dist.Normal(x, NOISE), obs=y)


def importance(particles=1000, chains=2, seed=0):
    """The posterior of `model` by importance sampling from the prior."""
    x = np.random.default_rng(seed).standard_normal((chains, particles, 2)).astype(np.float32)
    pointwise = -0.5 * ((Y - x) / NOISE) ** 2 - np.log(NOISE * np.sqrt(2 * np.pi))
    total = pointwise.sum(-1)
    weights = np.exp(total - total.max(1, keepdims=True))
    ess = weights.sum(1) ** 2 / (weights**2).sum(1)
    return record(
        total,
        samples={"x": x, "energy": (x**2).sum(-1)},
        log_evidence=np.log(np.exp(total).mean(1)),
        ess=np.broadcast_to(ess[:, None], (chains, 4)).copy(),
        pointwise_log_likelihood={"y": pointwise.astype(np.float32)},
        observed={"y": Y},
        attrs={"proposal": "Bootstrap()", "num_steps": 3},
    )


def lopsided():
    """Two chains of two particles at 0, 1 and 10, 11; pooled weights 1, 3, 3 and 9 of 16."""
    return record(
        np.log([[0.25, 0.75], [0.25, 0.75]]),
        samples={"x": np.array([[0.0, 1.0], [10.0, 11.0]])},
        log_evidence=np.log([1.0, 3.0]),
    )
