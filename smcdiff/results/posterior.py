"""What `smcdiff.SMC.run` returns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from smcdiff.errors import InputError
from smcdiff.results import _arviz as arviz
from smcdiff.results import _datatree as datatree
from smcdiff.results import _netcdf as netcdf
from smcdiff.results import _summary as summary
from smcdiff.results._axes import checked_axes
from smcdiff.results._diagnosis import Diagnosis, diagnose
from smcdiff.results._particles import WeightedParticles
from smcdiff.results._weighted import log_mean_evidence as log_mean_evidence


class Posterior(WeightedParticles):
    """The weighted posterior of a run; its fields are those of `WeightedParticles`.

    `samples` are the particles as they are, and count by ``log_weights``. `get_samples` and
    `resample` give equally weighted draws; `mean`, `std`, `summary` and `print_summary` count the
    weights themselves.
    """

    def __getitem__(self, site: Any) -> NoReturn:
        """Raises ``InputError``: a site's values are weighted or are not, which must be said."""
        raise InputError(
            f"posterior[{site!r}]: take posterior.get_samples()[{site!r}], equally weighted draws,"
            f" or posterior.samples[{site!r}], particles that count by posterior.log_weights"
        )

    def get_samples(self, group_by_chain: bool = False) -> dict[str, Shaped[Array, "..."]]:
        """Equally weighted draws with a fixed key, as `numpyro.infer.MCMC.get_samples` gives them.

        Args:
            group_by_chain: keep the chains apart.

        Returns:
            site -> (C N, *event), pooled over the chains as `pooled_weights` in random order; with
            ``group_by_chain`` (C, N, *event), each chain resampled by itself, which are the draws
            of `to_arviz`. The two differ where the evidences do. Draws repeat.
        """
        if not group_by_chain:
            return self.resample(jax.random.key(0), self.log_weights.size)
        indices = self.equal_indices()
        rows = np.arange(len(indices))[:, None]
        return {site: jnp.asarray(x[rows, indices]) for site, x in self.samples.items()}

    def summary(self, prob: float | int = 0.9) -> dict[str, dict[str, np.ndarray]]:
        """Mean, standard deviation and quantiles, weighted and pooled as `pooled_weights`.

        Args:
            prob: posterior probability between the two quantiles, which cut off equal parts.

        Returns:
            site -> ``"mean"``, ``"std"``, the quantiles (``"5.0%"`` and ``"95.0%"`` if prob is
            0.9), ``"mcse_mean"``, ``"mcse_std"`` and ``"n_eff"``, each of the site's event shape.
            ``n_eff`` is the number of independent draws that would tell the mean of the entry as
            well, from the particles' weights and common founders, and the standard errors
            (``mcse``) of mean and standard deviation are told by the same. Where few founders are
            left ``n_eff`` is too high, 2 to 3 times with ten effective ones; they are NaN below
            five of them, ``n_eff`` also where all values are equal.

        Raises:
            InputError: prob is not between 0 and 1.
        """
        return summary.summarise(self, prob)

    def print_summary(self, prob: float | int = 0.9) -> None:
        """Prints `summary` as a table, and what the numbers rest on.

        Of a site with more than 16 entries, an image for example, three are shown: those with the
        largest, the middle and the smallest standard deviation.

        Args:
            prob: posterior probability between the two quantiles.

        Raises:
            InputError: prob is not between 0 and 1.
        """
        summary.print_table(self, prob)

    def diagnose(self) -> Diagnosis:
        """Prints a report on weight degeneracy in plain language, and returns it.

        Raises:
            InputError: ArviZ is not installed.
        """
        diagnosis = diagnose(self)
        print(diagnosis)
        return diagnosis

    def to_arviz(
        self,
        posterior_predictive: Mapping[str, Any] | None = None,
        *,
        prior: Mapping[str, Any] | None = None,
        constant_data: Mapping[str, Any] | None = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
    ) -> Any:
        """What the functions of the installed ArviZ take, with ``arviz.from_numpyro``'s arguments.

        Groups: ``posterior`` (chain, draw; each chain resampled to equal weights with a fixed key,
        as `get_samples` by chain), ``sample_stats``, ``log_likelihood`` (each observed site,
        pointwise, of each draw) and ``observed_data``; ``prior``, ``prior_predictive``,
        ``posterior_predictive`` and ``constant_data`` where they are given; of the particles with
        their weights, ``weighted_posterior`` (chain, particle; with ``log_weight``, ``founder`` and
        ``log_likelihood``), ``weighted_log_likelihood`` and ``smc`` (chain, step; the filter's
        record, and ``log_evidence`` per chain with its standard error).

        An axis has the name of the model's plate, or of ``infer={"event_dims": [...]}`` of the
        site, and else ``x_dim_0`` and so on.

        Chains count equally in the groups of draws, as ArviZ wants them, while `mean`, `std` and
        `resample` pool them as `pooled_weights` says: by their evidence, or alike. R-hat and ESS
        of the resampled draws measure neither mixing nor Monte-Carlo error: look at ``smc`` and at
        `diagnose`.

        Args:
            posterior_predictive: site -> (C, N, ...), replications of the data, of
                ``numpyro.infer.Predictive(model, posterior.get_samples(group_by_chain=True),
                batch_ndims=2)``. Sites of the posterior are left out.
            prior: site -> (draws, ...), of ``Predictive(model, num_samples=...)``; sites of the
                posterior go to ``prior``, others to ``prior_predictive``.
            constant_data: name -> array: covariates, masks, the truth of a simulation.
            coords: name of an axis -> labels along it.
            dims: site, or name of constant data -> names of all its axes, in the place of the
                plates' names.

        Returns:
            ``arviz.InferenceData`` for ArviZ 0.x (Python 3.11), `xarray.DataTree` for ArviZ 1.x.

        Raises:
            InputError: ArviZ is not installed; draws of another number or shape than the run's;
                dims or coords of no variable, or of another number than its axes; a name for two
                things.
        """
        import xarray

        given = datatree.given_values(self, prior, posterior_predictive, constant_data)
        shapes = {**datatree.given_shapes(given), **datatree.event_shapes(self)}
        axes = checked_axes(self.dims, shapes, dims, coords)
        groups = datatree.draw_groups(self, axes) | datatree.given_groups(given, axes)
        tree = xarray.DataTree.from_dict({**groups, **datatree.particle_groups(self, axes)})
        tree.attrs.update({**self.attrs, "weighted": int(self.weighted)})
        return arviz.as_arviz_takes(tree)

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes the posterior as netCDF; an unfinished file never takes the name.

        The whole file is built in memory first, which needs as much again as the posterior takes.

        Args:
            path: file to write.
            overwrite: replace an existing file.

        Returns:
            The path.

        Raises:
            InputError: the file exists, or cannot be written (a full disk, no such folder); nothing
                is left of it.
        """
        target = Path(path)
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; choose another name or pass overwrite=True")
        netcdf.write(self, target)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike) -> Posterior:
        """Reads what `save` wrote.

        Raises:
            InputError: no such file, or not a complete smcdiff posterior.
        """
        return cls(**netcdf.read(Path(path)))
