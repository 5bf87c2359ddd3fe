"""A posterior as the `xarray.DataTree` that ArviZ reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    import xarray

    from smcdiff.results.posterior import Posterior


def _event_dims(name: str, value: np.ndarray, leading: tuple[str, ...]) -> tuple:
    count = value.ndim - len(leading)
    return (*leading, *(f"{name}_dim_{i}" for i in range(count))), value


def _resampled_indices(posterior: Posterior) -> np.ndarray:
    """(C, N) indices that make each chain equally weighted; the key is fixed."""
    from smcdiff.smc.resampling import systematic

    chains, particles = posterior.log_weights.shape
    keys = jax.random.split(jax.random.key(0), chains)
    weights = jnp.exp(jnp.asarray(posterior.log_weights))
    draw = [systematic(k, w, particles) for k, w in zip(keys, weights, strict=True)]
    return np.asarray(jnp.stack(draw))


def to_datatree(posterior: Posterior) -> xarray.DataTree:
    """The groups that `Posterior.to_arviz` describes."""
    import xarray

    p, draws, particle = posterior, ("chain", "draw"), ("chain", "particle")
    indices = _resampled_indices(p)
    rows = np.arange(len(indices))[:, None]
    step, weights = ("chain", "step"), {"log_weight": (particle, p.log_weights)}
    smc = {
        "ess": (step, p.ess),
        "log_evidence_increment": (step, p.log_evidence_increments),
        "resampled": (step, p.resampled),
        "num_founders": (step, p.num_founders),
        "log_snr": (("step",), p.log_snr),
        "log_evidence": (("chain",), p.log_evidence),
    }
    if p.ancestors is not None:
        smc["ancestors"] = (("chain", "step", "particle"), p.ancestors)
    terms = p.pointwise_log_likelihood.items()
    groups = {
        "posterior": {n: _event_dims(n, x[rows, indices], draws) for n, x in p.samples.items()},
        "weighted_posterior": {
            **{n: _event_dims(n, x, particle) for n, x in p.samples.items()},
            **weights,
            "founder": (particle, p.founders),
            "log_likelihood": (particle, p.log_likelihood),
        },
        "sample_stats": {
            "founder": (draws, p.founders[rows, indices]),
            "particle": (draws, indices),
        },
        "log_likelihood": {n: _event_dims(n, v[rows, indices], draws) for n, v in terms},
        "weighted_log_likelihood": {n: _event_dims(n, v, particle) for n, v in terms},
        "smc": smc,
        "observed_data": {n: _event_dims(n, v, ()) for n, v in p.observed.items()},
    }
    tree = xarray.DataTree.from_dict({n: _dataset(g) for n, g in groups.items()})
    sites = json.dumps(list(p.samples))  # files order variables by name
    tree.attrs.update(weighted=int(p.weighted), run=json.dumps(p.attrs), sites=sites)
    return tree


def _dataset(variables: dict) -> xarray.Dataset:
    import xarray

    dataset = xarray.Dataset(variables)
    sizes = {dim: size for dim, size in dataset.sizes.items()}
    return dataset.assign_coords({dim: np.arange(size) for dim, size in sizes.items()})
