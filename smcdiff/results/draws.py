"""What `smcdiff.ParticleGibbs.run` returns: the draws of Markov chains."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from smcdiff.results import _arviz as arviz
from smcdiff.results import _draws_table as table
from smcdiff.results._axes import DRAW, Axes
from smcdiff.results._datatree import dataset_of
from smcdiff.results._weighted import picked


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """Equally weighted draws of C Markov chains of S sweeps, after their warmup.

    Draws of a chain depend on each other, and the chains do not: R-hat and the effective sample
    size of ArviZ measure what they are made for.

    Attributes:
        samples: site -> (C, S, *event). The diffusion site comes first, unknown parameters and
            ``numpyro.deterministic`` sites follow.
        pointwise_log_likelihood: observed site -> (C, S, *batch), log p of its values.
        observed: site -> observed value.
        renewed: (C, S, K + 1) whether the state at each level of noise, x_T first and x_0 last, is
            another one than before the sweep.
        ess: (C, S, K + 1) effective sample size of the particles at each level.
        acceptance: (C, S) of the moves of unknown parameters; NaN where there are none.
        log_snr: (K + 1,) log signal-to-noise ratio of the levels; infinite at the last.
        dims: site -> names of all its axes, of the sites where plates name some.
        attrs: how the run was made.
        state: where the chains are; ``run(key, ..., init=draws)`` goes on from there.
    """

    samples: dict[str, Shaped[np.ndarray, "c s ..."]]
    pointwise_log_likelihood: dict[str, Float[np.ndarray, "c s ..."]]
    observed: dict[str, np.ndarray]
    renewed: Bool[np.ndarray, "c s times"]
    ess: Float[np.ndarray, "c s times"]
    acceptance: Float[np.ndarray, "c s"]
    log_snr: Float[np.ndarray, " times"]
    dims: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)
    state: Any = dataclasses.field(default=None, repr=False)

    def __repr__(self) -> str:
        """One line: sites, sizes, and how much of the path is renewed."""
        chains, sweeps = self.acceptance.shape
        sites = {name: value.shape[2:] for name, value in self.samples.items()}
        share = self.renewed[..., -1].mean()
        return f"Draws(sites={sites}, {chains} chains x {sweeps} sweeps, {share:.0%} moved x_0)"

    def get_samples(self, group_by_chain: bool = False) -> dict[str, Shaped[Array, "..."]]:
        """The draws, as `numpyro.infer.MCMC.get_samples` gives them.

        Args:
            group_by_chain: keep the chains apart.

        Returns:
            site -> (C S, *event); with ``group_by_chain`` (C, S, *event).
        """
        if group_by_chain:
            return {site: jnp.asarray(value) for site, value in self.samples.items()}
        return {site: jnp.asarray(self.pooled(site)) for site in self.samples}

    def resample(self, key: PRNGKeyArray, n: int | np.integer) -> dict[str, Shaped[Array, "n ..."]]:
        """Draws picked at random from all chains, as `Posterior.resample` picks them.

        Args:
            key: random key.
            n: number of draws.

        Returns:
            site -> (n, *event); what belongs together stays so. Draws repeat where there are fewer.

        Raises:
            InputError: n below 1.
        """
        indices = picked(key, self.pooled_weights.ravel(), n)
        return {site: jnp.asarray(self.pooled(site)[indices]) for site in self.samples}

    def pooled(self, site: str) -> Shaped[np.ndarray, "cs ..."]:
        """The draws of a site, all chains in a row."""
        value = self.samples[site]
        return value.reshape(-1, *value.shape[2:])

    @property
    def pooled_weights(self) -> Float[np.ndarray, "c s"]:
        """Equal ones; they sum to 1."""
        return np.full(self.acceptance.shape, 1.0 / self.acceptance.size)

    @property
    def log_likelihood(self) -> Float[np.ndarray, "c s"]:
        """Log p(y given x) of the draws: all observed sites and factors."""
        shape, terms = self.acceptance.shape, self.pointwise_log_likelihood.values()
        return sum((term.reshape(*shape, -1).sum(-1) for term in terms), np.zeros(shape))

    def mean(self) -> dict[str, np.ndarray]:
        """Posterior mean of each site, of its event shape."""
        return {s: np.asarray(self.pooled(s).mean(0, dtype=np.float64)) for s in self.samples}

    def std(self) -> dict[str, np.ndarray]:
        """Posterior standard deviation of each site, of its event shape."""
        return {s: np.asarray(self.pooled(s).std(0, dtype=np.float64)) for s in self.samples}

    def summary(self, prob: float | int = 0.9) -> dict[str, dict[str, np.ndarray]]:
        """Mean, standard deviation, quantiles and what ArviZ says of the chains.

        Args:
            prob: posterior probability between the two quantiles, which cut off equal parts.

        Returns:
            site -> ``"mean"``, ``"std"``, the quantiles (``"5.0%"`` and ``"95.0%"`` if prob is
            0.9), ``"mcse"`` (standard error of the mean), ``"ess_bulk"``, ``"ess_tail"`` and
            ``"r_hat"`` (rank-normalised), each of the site's event shape.

        Raises:
            InputError: prob is not between 0 and 1, or ArviZ is not installed.
        """
        return {site: table.numbers(value, prob) for site, value in self.samples.items()}

    def print_summary(self, prob: float | int = 0.9) -> None:
        """Prints `summary` as a table, and how much of the path a sweep renews.

        Of a site with more than 16 entries, an image for example, three are shown: those with the
        largest, the middle and the smallest standard deviation.

        Args:
            prob: posterior probability between the two quantiles.

        Raises:
            InputError: prob is not between 0 and 1, or ArviZ is not installed.
        """
        table.print_table(self.samples, prob)
        chains, sweeps = self.acceptance.shape
        share = self.renewed.mean(axis=(0, 1))
        print(
            f"{chains} chains x {sweeps} sweeps; of them {share[0]:.0%} renewed x_T,"
            f" {share[len(share) // 2]:.0%} the middle of the path and {share[-1]:.0%} x_0"
        )

    def to_arviz(self) -> Any:
        """What the functions of the installed ArviZ take.

        Groups: ``posterior`` and ``log_likelihood`` (chain, draw), ``observed_data``, and
        ``sample_stats`` (chain, draw): ``lp`` is the log likelihood, ``renewed`` the share of the
        path that the sweep renewed, ``renewed_x0`` whether x_0 is new, ``ess`` the smallest
        effective sample size of the particles, ``acceptance_rate`` of the unknown parameters.

        Returns:
            ``arviz.InferenceData`` for ArviZ 0.x (Python 3.11), `xarray.DataTree` for ArviZ 1.x.

        Raises:
            InputError: ArviZ is not installed.
        """
        import xarray

        stats = {
            "lp": self.log_likelihood,
            "renewed": self.renewed.mean(axis=-1),
            "renewed_x0": self.renewed[..., -1],
            "ess": self.ess.min(axis=-1),
        }
        if not np.all(np.isnan(self.acceptance)):
            stats["acceptance_rate"] = self.acceptance
        axes = Axes(self.dims)
        groups = {
            "posterior": dataset_of(self.samples, DRAW, axes),
            "sample_stats": dataset_of(stats, DRAW, axes),
            "log_likelihood": dataset_of(self.pointwise_log_likelihood, DRAW, axes),
            "observed_data": dataset_of(self.observed, (), axes),
        }
        tree = xarray.DataTree.from_dict(groups)
        tree.attrs.update(self.attrs)
        return arviz.as_arviz_takes(tree)
