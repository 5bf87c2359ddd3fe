"""The record of a run: weighted particles, evidence, and what the filter did.

With chains c, particles i, normalised weights W_ci and evidence estimates Z_c, expectations are
estimated by ``sum_c Z_c sum_i W_ci f(x_ci) / sum_c Z_c``: chains are pooled by their evidence,
which is what makes the pooled estimate consistent in the number of chains. Where weights were off,
all chains and particles count the same; where the evidence of a chain is that of a path of its own
(`proposals.TwistedPath` with a learned kernel) the chains do.

Diagnosis, export and pictures take this record; `smcdiff.Posterior` is the user's face of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from smcdiff.results import _weighted as averages
from smcdiff.smc.resampling import systematic

SHOWN_CHAINS = 8
"""Up to here each chain is shown by itself."""


def of_chains(values: Float[np.ndarray, " c"], precision: int) -> str:
    """A number of each chain, or of many the smallest and the largest."""
    if len(values) <= SHOWN_CHAINS:
        return np.array2string(values, precision=precision)
    return f"{values.min():.{precision}f} to {values.max():.{precision}f}"


@dataclasses.dataclass(frozen=True, eq=False)
class WeightedParticles:
    """Weighted particles of C chains of N, after K reverse steps.

    Attributes:
        samples: site -> (C, N, *event), the particles as they are: use them with ``log_weights``,
            or call `resample`. The diffusion site comes first, unknown parameters and
            ``numpyro.deterministic`` sites follow.
        log_weights: (C, N), normalised in each chain.
        log_evidence: (C,) log Z_hat; NaN where weights were off. Where y is observed without noise
            it is a log density on the range of the operator, that of y if its rows are independent.
        log_evidence_se: (C,) standard error of each, told from the founders; NaN where they cannot
            tell: fewer than 10 are left, or than 5 effective ones by their weights, a chain's
            evidence is that of a path of its own, or weights were off. See
            `smcdiff.smc.evidence_variance`.
        ess: (C, K + 1) effective sample size after each weighting.
        founders: (C, N) the particle of step 0 from which each descends.
        num_founders: (C, K + 1) number of distinct founders.
        log_evidence_increments: (C, K + 1).
        resampled: (C, K + 1) whether the step began by resampling.
        log_snr: (K + 1,) log signal-to-noise ratio of the states; infinite at the last.
        pointwise_log_likelihood: observed site -> (C, N, *batch), log p of its values given the
            particles; 0 where y is observed without noise, which has no density at x.
        observed: site -> observed value.
        weighted: whether weights were on.
        chains_alike: whether the chains count alike, and not by their evidence.
        ancestors: (C, K + 1, N) parents of each step, or None.
        prior_widths: (C, N) root mean square over the entries of the diffusion site of its
            distance from the prior's centre, in standard deviations of the prior; None where it is
            not known.
        dims: site -> names of all its axes, of the sites where plates name some.
        attrs: how the run was made.
    """

    samples: dict[str, Shaped[np.ndarray, "c n ..."]]
    log_weights: Float[np.ndarray, "c n"]
    log_evidence: Float[np.ndarray, " c"]
    log_evidence_se: Float[np.ndarray, " c"]
    ess: Float[np.ndarray, "c steps"]
    founders: Int[np.ndarray, "c n"]
    num_founders: Int[np.ndarray, "c steps"]
    log_evidence_increments: Float[np.ndarray, "c steps"]
    resampled: Bool[np.ndarray, "c steps"]
    log_snr: Float[np.ndarray, " steps"]
    pointwise_log_likelihood: dict[str, Float[np.ndarray, "c n ..."]]
    observed: dict[str, np.ndarray]
    weighted: bool
    chains_alike: bool = False
    ancestors: Int[np.ndarray, "c steps n"] | None = None
    prior_widths: Float[np.ndarray, "c n"] | None = None
    dims: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: sites, sizes, evidence, ESS."""
        chains, particles = self.log_weights.shape
        sites = {name: value.shape[2:] for name, value in self.samples.items()}
        return (
            f"{type(self).__name__}(sites={sites}, {chains} chains x {particles} particles,"
            f" log_evidence={of_chains(self.log_evidence, 2)},"
            f" final ESS={of_chains(self.ess[:, -1], 1)})"
        )

    @property
    def log_likelihood(self) -> Float[np.ndarray, "c n"]:
        """Log p(y given x) of the particles: all observed sites and factors."""
        terms = self.pointwise_log_likelihood.values()
        shape = self.log_weights.shape
        return sum((term.reshape(*shape, -1).sum(-1) for term in terms), np.zeros(shape))

    @property
    def pooled_weights(self) -> Float[np.ndarray, "c n"]:
        """Weights over all chains, summing to 1; chains count by their evidence, or alike."""
        log_weights = self.log_weights.astype(np.float64)
        if self.weighted and not self.chains_alike:
            log_weights = log_weights + self.log_evidence[:, None]
        weights = np.exp(log_weights - log_weights.max())
        return weights / weights.sum()

    @property
    def pooled_log_evidence(self) -> float:
        """Log of the mean of the chains' Z_hat, which is unbiased; NaN where weights were off."""
        return averages.log_mean_evidence(self.log_evidence)

    @property
    def pooled_log_evidence_se(self) -> float:
        """Standard error of `pooled_log_evidence`: from the chains' spread where there are four.

        With fewer it is that of their founders; NaN where neither can tell.
        """
        return averages.log_mean_evidence_se(self.log_evidence, self.log_evidence_se)

    @property
    def pooled_founders(self) -> Int[np.ndarray, " cn"]:
        """The founder of each particle of all chains in a row, with chains told apart."""
        chains, particles = self.founders.shape
        return (self.founders + particles * np.arange(chains)[:, None]).ravel()

    def pooled(self, site: str) -> Shaped[np.ndarray, "cn ..."]:
        """The particles of a site, all chains in a row, as ``pooled_weights.ravel()`` counts."""
        value = self.samples[site]
        return value.reshape(self.log_weights.size, *value.shape[2:])

    def mean(self) -> dict[str, np.ndarray]:
        """Posterior mean of each site, of its event shape."""
        weights = self.pooled_weights.ravel()
        return {site: averages.mean(self.pooled(site), weights) for site in self.samples}

    def std(self) -> dict[str, np.ndarray]:
        """Posterior standard deviation of each site, of its event shape."""
        weights = self.pooled_weights.ravel()
        return {site: averages.std(self.pooled(site), weights) for site in self.samples}

    def resample(self, key: PRNGKeyArray, n: int | np.integer) -> dict[str, Shaped[Array, "n ..."]]:
        """Equally weighted draws, pooled over the chains as `pooled_weights` says.

        Args:
            key: random key.
            n: number of draws.

        Returns:
            site -> (n, *event). Draws repeat where the ESS is below n.

        Raises:
            InputError: n below 1.
        """
        indices = averages.picked(key, self.pooled_weights.ravel(), n)
        return {site: jnp.asarray(self.pooled(site)[indices]) for site in self.samples}

    def equal_indices(self) -> Int[np.ndarray, "c n"]:
        """Indices that resample each chain by itself to equal weights; the key is fixed."""
        chains, particles = self.log_weights.shape
        keys = jax.random.split(jax.random.key(0), chains)
        weights = jnp.exp(jnp.asarray(self.log_weights))
        draws = [systematic(k, w, particles) for k, w in zip(keys, weights, strict=True)]
        return np.asarray(jnp.stack(draws))
