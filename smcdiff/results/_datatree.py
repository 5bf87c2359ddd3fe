"""A run as an `xarray.DataTree`: the groups of the file, and those that ArviZ reads besides.

The groups of particles hold everything, once: ``weighted_posterior`` (chain, particle), the
filter's record in ``smc`` (chain, step), ``weighted_log_likelihood`` and ``observed_data``. ArviZ
knows no weights, so for it there are groups of equally weighted draws (chain, draw) beside them.
A site is a variable of its name (names that a file cannot hold are refused before a run).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from smcdiff.errors import InputError
from smcdiff.results._particles import WeightedParticles

if TYPE_CHECKING:
    import xarray

PARTICLE, DRAW, STEP = ("chain", "particle"), ("chain", "draw"), ("chain", "step")


def _site_variables(values: dict[str, Any], leading: tuple[str, ...]) -> dict[str, tuple]:
    variables = {}
    for site, value in values.items():
        value = np.asarray(value)
        if value.dtype.kind == "V":  # bfloat16 and shorter: netCDF has no such type
            value = value.astype(np.float32)
        events = [f"{site}_dim_{i}" for i in range(value.ndim - len(leading))]
        variables[site] = ((*leading, *events), value)
    return variables


def particle_groups(particles: WeightedParticles) -> dict[str, xarray.Dataset]:
    """Everything of a run but its ``weighted`` and ``attrs``, as datasets.

    Args:
        particles: the record of the run.

    Returns:
        group -> dataset.
    """
    p = particles
    smc = {
        "ess": (STEP, p.ess),
        "log_evidence_increment": (STEP, p.log_evidence_increments),
        "resampled": (STEP, p.resampled),
        "num_founders": (STEP, p.num_founders),
        "log_snr": (("step",), p.log_snr),
        "log_evidence": (("chain",), p.log_evidence),
        "log_evidence_se": (("chain",), p.log_evidence_se),
    }
    if p.ancestors is not None:
        smc["ancestors"] = (("chain", "step", "particle"), p.ancestors)
    widths = {} if p.prior_widths is None else {"prior_widths": (PARTICLE, p.prior_widths)}
    groups = {
        "weighted_posterior": {
            **widths,
            **_site_variables(p.samples, PARTICLE),
            "log_weight": (PARTICLE, p.log_weights),
            "founder": (PARTICLE, p.founders),
            "log_likelihood": (PARTICLE, p.log_likelihood),
        },
        "weighted_log_likelihood": _site_variables(p.pointwise_log_likelihood, PARTICLE),
        "smc": smc,
        "observed_data": _site_variables(p.observed, ()),
    }
    return {name: _dataset(variables) for name, variables in groups.items()}


def draw_groups(
    particles: WeightedParticles, posterior_predictive: dict[str, Any] | None = None
) -> dict[str, xarray.Dataset]:
    """The groups of equally weighted draws that ArviZ reads.

    Args:
        particles: the record of the run.
        posterior_predictive: observed site -> (C, N, ...), replications for the draws of
            `smcdiff.Posterior.get_samples` by chain. Sites of the posterior, which NumPyro's
            ``Predictive`` repeats, are left out.

    Returns:
        group -> dataset.

    Raises:
        InputError: replications of another shape.
    """
    p, indices = particles, particles.equal_indices()
    rows = np.arange(len(indices))[:, None]

    def draws(values):
        return _site_variables({site: x[rows, indices] for site, x in values.items()}, DRAW)

    groups = {
        "posterior": draws(p.samples),
        "sample_stats": {
            "founder": (DRAW, p.founders[rows, indices]),
            "particle": (DRAW, indices),
        },
        "log_likelihood": draws(p.pointwise_log_likelihood),
    }
    if posterior_predictive is not None:
        new = {site: x for site, x in posterior_predictive.items() if site not in p.samples}
        _check_replications(new, indices.shape)
        groups["posterior_predictive"] = _site_variables(new, DRAW)
    return {name: _dataset(variables) for name, variables in groups.items()}


def _check_replications(replications: dict[str, Any], shape: tuple[int, ...]) -> None:
    for site, value in replications.items():
        if np.shape(value)[:2] != shape:
            raise InputError(
                f"to_arviz: posterior_predictive['{site}'] has shape {np.shape(value)}, which does"
                f" not begin with chains and draws {shape}; make it with Predictive(model,"
                " posterior.get_samples(group_by_chain=True), batch_ndims=2)"
            )


def _dataset(variables: dict[str, tuple]) -> xarray.Dataset:
    import xarray

    dataset = xarray.Dataset(variables)
    return dataset.assign_coords({dim: np.arange(size) for dim, size in dataset.sizes.items()})
