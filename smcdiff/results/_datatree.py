"""A run as an `xarray.DataTree`: the groups of the file, and those that ArviZ reads besides.

The groups of particles hold everything, once: ``weighted_posterior`` (chain, particle), the
filter's record in ``smc`` (chain, step), ``weighted_log_likelihood`` and ``observed_data``. ArviZ
knows no weights, so for it there are groups of equally weighted draws (chain, draw) beside them,
and those of what the user drew or knows besides: ``prior``, ``prior_predictive``,
``posterior_predictive``, ``constant_data``. A site is a variable of its name (names that a file
cannot hold are refused before a run).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from smcdiff.errors import InputError
from smcdiff.results._axes import DRAW, PARTICLE, STEP, Axes, Shapes
from smcdiff.results._particles import WeightedParticles

if TYPE_CHECKING:
    import xarray


def _site_variables(
    values: Mapping[str, Any], leading: tuple[str, ...], axes: Axes
) -> dict[str, tuple]:
    variables = {}
    for site, value in values.items():
        value = np.asarray(value)
        if value.dtype.kind == "V":  # bfloat16 and shorter: netCDF has no such type
            value = value.astype(np.float32)
        variables[site] = ((*leading, *axes.of(site, value.ndim - len(leading))), value)
    return variables


def particle_groups(particles: WeightedParticles, axes: Axes) -> dict[str, xarray.Dataset]:
    """Everything of a run but its ``weighted`` and ``attrs``, as datasets.

    Args:
        particles: the record of the run.
        axes: of the sites.

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
            **_site_variables(p.samples, PARTICLE, axes),
            "log_weight": (PARTICLE, p.log_weights),
            "founder": (PARTICLE, p.founders),
            "log_likelihood": (PARTICLE, p.log_likelihood),
        },
        "weighted_log_likelihood": _site_variables(p.pointwise_log_likelihood, PARTICLE, axes),
        "smc": smc,
        "observed_data": _site_variables(p.observed, (), axes),
    }
    return {name: _dataset(variables, axes) for name, variables in groups.items()}


def draw_groups(particles: WeightedParticles, axes: Axes) -> dict[str, xarray.Dataset]:
    """The groups of equally weighted draws that ArviZ reads.

    Args:
        particles: the record of the run.
        axes: of the sites.

    Returns:
        group -> dataset.
    """
    p, indices = particles, particles.equal_indices()
    rows = np.arange(len(indices))[:, None]

    def draws(values):
        return _site_variables({site: x[rows, indices] for site, x in values.items()}, DRAW, axes)

    groups = {
        "posterior": draws(p.samples),
        "sample_stats": {
            "founder": (DRAW, p.founders[rows, indices]),
            "particle": (DRAW, indices),
        },
        "log_likelihood": draws(p.pointwise_log_likelihood),
    }
    return {name: _dataset(variables, axes) for name, variables in groups.items()}


def dataset_of(values: Mapping[str, Any], leading: tuple[str, ...], axes: Axes) -> xarray.Dataset:
    """Arrays by name, all with the same leading axes."""
    return _dataset(_site_variables(values, leading, axes), axes)


Values = Mapping[str, Mapping[str, np.ndarray]]
"""Group -> variable -> values; draws have axes of chains and draws in front."""


def given_values(
    particles: WeightedParticles,
    prior: Mapping[str, Any] | None,
    posterior_predictive: Mapping[str, Any] | None,
    constant_data: Mapping[str, Any] | None,
) -> Values:
    """What a user gives beside a run, by group, checked against the run.

    Args:
        particles: the record of the run.
        prior: site -> (draws, ...). The sites of the posterior are ``prior``, others
            ``prior_predictive``.
        posterior_predictive: site -> (C, N, ...), of the draws of `smcdiff.Posterior.get_samples`
            by chain. Sites of the posterior, which NumPyro's ``Predictive`` can repeat, are left
            out.
        constant_data: name -> array.

    Raises:
        InputError: draws of another number or shape, or data with the name of a site.
    """
    unknown, events = particles.samples, event_shapes(particles)
    drawn = {site: np.asarray(value) for site, value in (prior or {}).items()}
    _check_prior(drawn, events)
    drawn = {site: value[None] for site, value in drawn.items()}
    replicated = {
        site: np.asarray(value) for site, value in (posterior_predictive or {}).items()
        if site not in unknown
    }  # fmt: skip
    _check_replications(replicated, events, particles.log_weights.shape)
    constants = {name: np.asarray(value) for name, value in (constant_data or {}).items()}
    for name in constants:
        if name in events or name in drawn or name in replicated:
            raise InputError(
                f"to_arviz: constant_data['{name}'] has the name of a site; choose another name"
            )
    return {
        "prior": {site: value for site, value in drawn.items() if site in unknown},
        "prior_predictive": {site: value for site, value in drawn.items() if site not in unknown},
        "posterior_predictive": replicated,
        "constant_data": constants,
    }


def given_groups(values: Values, axes: Axes) -> dict[str, xarray.Dataset]:
    """The datasets of `given_values`; groups of which nothing was given are left out."""
    return {
        group: dataset_of(found, () if group == "constant_data" else DRAW, axes)
        for group, found in values.items()
        if found
    }


def given_shapes(values: Values) -> Shapes:
    """Of each variable of `given_values`, without chains and draws."""
    shapes = {}
    for group, found in values.items():
        leading = 0 if group == "constant_data" else len(DRAW)
        shapes |= {name: value.shape[leading:] for name, value in found.items()}
    return shapes


def event_shapes(particles: WeightedParticles) -> Shapes:
    """Of each site of a run, without chains and draws; of factors, of their terms."""
    terms = {site: value.shape[2:] for site, value in particles.pointwise_log_likelihood.items()}
    observed = {site: np.shape(value) for site, value in particles.observed.items()}
    unknown = {site: value.shape[2:] for site, value in particles.samples.items()}
    return {**terms, **observed, **unknown}


def _check_prior(drawn: Mapping[str, np.ndarray], events: Shapes) -> None:
    counts = {site: value.shape[:1] for site, value in drawn.items()}
    for site, value in drawn.items():
        expected = events.get(site, value.shape[1:])
        count = next(iter(counts.values()))
        if not count or value.shape != (*count, *expected):
            raise InputError(
                f"to_arviz: prior['{site}'] has shape {value.shape} in place of"
                f" {(*count, *expected) if count else ('draws', *expected)}; make it with"
                " Predictive(model, num_samples=...)(key, ...), and leave the data out"
            )


def _check_replications(
    replicated: Mapping[str, np.ndarray], events: Shapes, leading: tuple[int, ...]
) -> None:
    for site, value in replicated.items():
        expected = (*leading, *events.get(site, value.shape[2:]))
        if value.shape != expected:
            raise InputError(
                f"to_arviz: posterior_predictive['{site}'] has shape {value.shape} in place of"
                f" {expected}; make it with Predictive(model,"
                " posterior.get_samples(group_by_chain=True), batch_ndims=2)"
            )


def _dataset(variables: dict[str, tuple], axes: Axes) -> xarray.Dataset:
    import xarray

    dataset = xarray.Dataset(variables)
    return dataset.assign_coords(axes.labelled(dataset.sizes))
