"""The result of a run: weighted particles, evidence, and their export.

With chains c, particles i, normalised weights W_ci and evidence estimates Z_c, expectations are
estimated by ``sum_c Z_c sum_i W_ci f(x_ci) / sum_c Z_c``: chains are pooled by their evidence,
which is what makes the pooled estimate consistent in the number of chains. Where weights were off,
all chains and particles count the same.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from smcdiff.base.files import check_file, replacing
from smcdiff.errors import InputError

if TYPE_CHECKING:
    import xarray

    from smcdiff.results.diagnosis import Diagnosis

_FORMAT = "smcdiff-posterior-3"


def log_mean_evidence(log_evidence: Float[np.ndarray, " c"]) -> float:
    """Log of the mean of the chains' evidence estimates: the pooled, unbiased one."""
    largest = np.max(log_evidence)
    return float(largest + np.log(np.mean(np.exp(log_evidence.astype(np.float64) - largest))))


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Weighted particles of C chains of N, after K reverse steps.

    Attributes:
        samples: site -> (C, N, *event), the particles as they are: use them with ``log_weights``,
            or call `resample`. The diffusion site comes first, ``numpyro.deterministic`` sites
            follow.
        log_weights: (C, N), normalised in each chain.
        log_evidence: (C,) log Z_hat; NaN where weights were off. Where y is observed without noise
            it is a log density on the range of the operator, that of y if its rows are independent.
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
        ancestors: (C, K + 1, N) parents of each step, or None.
        attrs: how the run was made.
    """

    samples: dict[str, Float[np.ndarray, "c n *event"]]
    log_weights: Float[np.ndarray, "c n"]
    log_evidence: Float[np.ndarray, " c"]
    ess: Float[np.ndarray, "c steps"]
    founders: Int[np.ndarray, "c n"]
    num_founders: Int[np.ndarray, "c steps"]
    log_evidence_increments: Float[np.ndarray, "c steps"]
    resampled: Bool[np.ndarray, "c steps"]
    log_snr: Float[np.ndarray, " steps"]
    pointwise_log_likelihood: dict[str, Float[np.ndarray, "c n *batch"]]
    observed: dict[str, np.ndarray]
    weighted: bool
    ancestors: Int[np.ndarray, "c steps n"] | None = None
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: sites, sizes, evidence, ESS."""
        chains, particles = self.log_weights.shape
        sites = {name: value.shape[2:] for name, value in self.samples.items()}
        evidence = np.array2string(self.log_evidence, precision=2)
        return (
            f"Posterior(sites={sites}, {chains} chains x {particles} particles,"
            f" log_evidence={evidence}, final ESS={np.array2string(self.ess[:, -1], precision=1)})"
        )

    @property
    def log_likelihood(self) -> Float[np.ndarray, "c n"]:
        """Log p(y given x) of the particles: all observed sites and factors."""
        terms = self.pointwise_log_likelihood.values()
        shape = self.log_weights.shape
        return sum((term.reshape(*shape, -1).sum(-1) for term in terms), np.zeros(shape))

    @property
    def pooled_weights(self) -> Float[np.ndarray, "c n"]:
        """Weights over all chains, summing to 1; chains count by their evidence."""
        log_weights = self.log_weights.astype(np.float64)
        if self.weighted:
            log_weights = log_weights + self.log_evidence[:, None]
        weights = np.exp(log_weights - log_weights.max())
        return weights / weights.sum()

    def resample(self, key: PRNGKeyArray, n: int) -> dict[str, Float[Array, " n *event"]]:
        """Equally weighted draws, pooled over the chains by their evidence.

        Args:
            key: random key.
            n: number of draws.

        Returns:
            site -> (n, *event). Draws repeat where the ESS is below n.

        Raises:
            InputError: n below 1.
        """
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise InputError(f"resample: n is {n}; it must be a whole number, at least 1")
        from smcdiff.smc.resampling import systematic

        key_draw, key_order = jax.random.split(key)
        weights = jnp.asarray(self.pooled_weights.ravel(), jnp.result_type(float))
        indices = np.asarray(systematic(key_draw, weights, n))
        indices = np.asarray(jax.random.permutation(key_order, indices))
        return {
            name: jnp.asarray(value.reshape(-1, *value.shape[2:])[indices])
            for name, value in self.samples.items()
        }

    def mean(self) -> dict[str, np.ndarray]:
        """Posterior mean of each site, of its event shape."""
        weights = self.pooled_weights
        return {name: np.tensordot(weights, x, 2) for name, x in self.samples.items()}

    def std(self) -> dict[str, np.ndarray]:
        """Posterior standard deviation of each site, of its event shape."""
        weights, means = self.pooled_weights, self.mean()
        return {
            name: np.sqrt(np.tensordot(weights, (x - means[name]) ** 2, 2))
            for name, x in self.samples.items()
        }

    def diagnose(self) -> Diagnosis:
        """Prints a report on weight degeneracy in plain language, and returns it."""
        from smcdiff.results.diagnosis import diagnose

        diagnosis = diagnose(self)
        print(diagnosis)
        return diagnosis

    def to_arviz(self) -> xarray.DataTree:
        """One `xarray.DataTree` for ArviZ.

        Groups: ``posterior`` (chain, draw; each chain resampled to equal weights with a fixed key),
        ``weighted_posterior`` (chain, particle; with ``log_weight``, ``founder`` and
        ``log_likelihood``), ``sample_stats``, ``log_likelihood`` (each observed site, pointwise, of
        each draw; ``weighted_log_likelihood`` of each particle), ``smc`` (chain, step; the filter's
        record, and ``log_evidence`` a chain) and ``observed_data``.
        ArviZ 1.x takes it as it is; with 0.23 call ``arviz.from_datatree``. Chains count equally in
        the groups of draws, as ArviZ wants them, while `mean`, `std` and `resample` pool them by
        their evidence: the two differ where the evidences do. R-hat and ESS of the resampled draws
        measure neither mixing nor Monte-Carlo error: look at ``smc`` and at `diagnose`.
        """
        from smcdiff.results.arviz import to_datatree

        return to_datatree(self)

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes the posterior as netCDF; an unfinished file never takes the name.

        Args:
            path: file to write.
            overwrite: replace an existing file.

        Returns:
            The path.

        Raises:
            InputError: the file exists, or cannot be written.
        """
        target = Path(path)
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; choose another name or pass overwrite=True")
        tree = self.to_arviz()
        tree.attrs["smcdiff_format"] = _FORMAT
        with replacing(target) as temporary:
            try:
                temporary.touch()
            except OSError as error:
                raise InputError(
                    f"{target}: cannot write there ({error.strerror}); choose another folder"
                ) from error
            tree.to_netcdf(temporary, engine="h5netcdf")
        return target

    @classmethod
    def load(cls, path: str | os.PathLike) -> Posterior:
        """Reads what `save` wrote.

        Raises:
            InputError: no such file, or not a complete smcdiff posterior.
        """
        import h5py
        import xarray

        target = Path(path)
        check_file(target, "a posterior.nc that smcdiff wrote")
        try:
            # First: a file that h5netcdf cannot open leaves a traceback when it is collected.
            with h5py.File(target, "r") as file:
                if file.attrs.get("smcdiff_format") != _FORMAT:
                    raise InputError(
                        f"{target}: not a posterior written by smcdiff; give a posterior.nc"
                    )
            with xarray.open_datatree(target, engine="h5netcdf") as tree:
                return _from_datatree(tree.load())
        except InputError:
            raise
        except Exception as error:  # damaged bytes make h5py and xarray raise almost anything
            raise InputError(
                f"{target}: cannot be read as a posterior; it may be truncated or damaged, so run"
                " it again"
            ) from error


def _from_datatree(tree: xarray.DataTree) -> Posterior:
    smc, particles = tree["smc"].to_dataset(), tree["weighted_posterior"].to_dataset()
    pointwise = tree["weighted_log_likelihood"].to_dataset()
    return Posterior(
        samples={name: particles[name].values for name in json.loads(tree.attrs["sites"])},
        log_weights=particles["log_weight"].values,
        log_evidence=smc["log_evidence"].values,
        ess=smc["ess"].values,
        founders=particles["founder"].values,
        num_founders=smc["num_founders"].values,
        log_evidence_increments=smc["log_evidence_increment"].values,
        resampled=smc["resampled"].values.astype(bool),
        log_snr=smc["log_snr"].values,
        pointwise_log_likelihood={str(n): v.values for n, v in pointwise.data_vars.items()},
        observed={str(n): v.values for n, v in tree["observed_data"].data_vars.items()},
        weighted=bool(tree.attrs["weighted"]),
        ancestors=smc["ancestors"].values if "ancestors" in smc else None,
        attrs=json.loads(tree.attrs["run"]),
    )
