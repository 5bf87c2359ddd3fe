"""`calibrate`: whether a sampler's posteriors are right, on data that the model has simulated.

    model -> unknowns and data (_joint) -> the sampler's draws (_samplers) -> ranks of the true
    unknowns among them (_quantities) -> `smcdiff.Calibration`

If the posterior is right, a truth that was drawn with its data from the model is distributed as the
posterior's draws are, so its rank among them is uniform.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray

from smcdiff._version import __version__
from smcdiff.base._files import claim, made_folder
from smcdiff.base._progress import Progress, begin, progress_of
from smcdiff.calibration._joint import Joint, Simulation, read_joint
from smcdiff.calibration._quantities import (
    NUM_PILOTS,
    Quantity,
    Ranking,
    check_quantities,
    values_of,
)
from smcdiff.calibration._record import joined, limited
from smcdiff.calibration._samplers import Runs, runs_of
from smcdiff.calibration.result import Calibration
from smcdiff.errors import SamplingError
from smcdiff.problem._arguments import check_concrete
from smcdiff.problem._program_key import program_key
from smcdiff.sampler._settings import typed_key, whole_number
from smcdiff.smc.checkpoint import digest

_RECORD = "calibration.json"


def calibrate(
    model: Callable,
    sampler: Any,
    *args: Any,
    num_simulations: int,
    key: PRNGKeyArray | None = None,
    num_draws: int = 99,
    quantities: Mapping[str, Quantity] | None = None,
    data_arguments: Mapping[str, str] | None = None,
    simulations_per_batch: int = 16,
    output: str | os.PathLike | None = None,
    progress_bar: bool | Progress = True,
    **kwargs: Any,
) -> Calibration:
    """Simulation-based calibration and TARP coverage of a sampler.

    Args:
        model: a NumPyro model that draws its observed sites where their data are None, as
            ``numpyro.sample("y", ..., obs=y)`` with ``y=None`` does. Unknowns and data are drawn
            from it. Where the sampler runs a reverse chain, as `SMC` does, diffusion sites are
            drawn from that chain (its kernel and grid), which is the prior that the sampler means.
        sampler: an `SMC`, which runs its own model (as a rule the same); something with the same
            ``run(key, *args, **kwargs)`` that returns a `Posterior`; or a function ``(key, data)``
            of a random key and the data by observed site, that returns equally weighted draws,
            ``{latent site: (n, *event)}``.
        *args: arguments of the model, without its data.
        num_simulations: S; small errors need many, and 500 see a shift of a fifth of the
            posterior's standard deviation.
        key: random key; None is ``jax.random.key(0)``. The same key gives the same result.
        num_draws: L, draws of each posterior among which the truth is ranked. Well below the
            effective number of particles (the table tells), else the draws repeat, and ranks are
            not uniform even if the weights are right.
        quantities: more functions to be ranked: name -> ``f(sites, data)`` of one draw's sites and
            the data by site, in jax.numpy; each entry of what it returns is a quantity. Without
            them: every entry of sites of at most 16 entries; of larger ones their mean, standard
            deviation and four random projections; and the log likelihood, without which a sampler
            that ignores the data would pass.
        data_arguments: observed site -> argument that takes its data. None is every site that
            bears the name of an argument.
        simulations_per_batch: simulations that run side by side, of `SMC` in one compiled call.
        output: a folder for the ranks of each batch; the same call goes on after it was killed, to
            the same bits, and with more ``num_simulations`` goes further. A folder of another
            model, key, number of draws or `SMC` is refused; of a function the name alone is seen.
        progress_bar: show progress; or a function, as for `SMC`.
        **kwargs: keyword arguments of the model, without its data.

    Returns:
        The calibration; print it.

    Raises:
        InputError: a model that cannot be simulated, a sampler that does not fit it, or a folder of
            another calibration; before long work. Or a sampler that returns something else than
            draws of all latent sites.
    """
    start = time.perf_counter()
    check_concrete(args, kwargs)
    key = jax.random.key(0) if key is None else typed_key(key, "calibrate")
    size = whole_number("num_simulations", num_simulations, 1, "calibrate")
    num_draws = whole_number("num_draws", num_draws, 1, "calibrate")
    length = whole_number("simulations_per_batch", simulations_per_batch, 1, "calibrate")
    joint = read_joint(model, args, kwargs, data_arguments)
    check_quantities(joint, quantities or {})
    key_pilot, key_data, key_run, key_rank = jax.random.split(key, 4)
    runs = runs_of(sampler, joint, key_run, num_draws, size)
    work = _Work(joint, runs, quantities or {}, (key_pilot, key_data, key_rank), num_draws, length)
    with progress_of(progress_bar, "Calibrating", "simulations") as progress:
        begin(progress)
        shown = progress if progress_bar else None
        if output is None:
            batches = [work.batch(first, size, shown) for first in range(0, size, length)]
        else:
            with made_folder(Path(output), "choose another output") as folder:
                claim(folder / _RECORD, {**work.identity, "random key": digest(key)}, "calibration")
                batches = [
                    work.kept(folder, first, size, shown) for first in range(0, size, length)
                ]
    attrs = {**runs.identity, "smcdiff": __version__, "seconds": time.perf_counter() - start}
    return Calibration(**{**joined(batches), "attrs": attrs})


class _Work:
    """The simulations of a calibration, batch after batch.

    Args:
        joint: the model.
        runs: the sampler.
        quantities: the user's.
        keys: random keys of pilots, of data and of ranks.
        num_draws: L.
        length: simulations of a batch.
    """

    def __init__(
        self,
        joint: Joint,
        runs: Runs,
        quantities: Mapping[str, Quantity],
        keys: tuple[PRNGKeyArray, PRNGKeyArray, PRNGKeyArray],
        num_draws: int,
        length: int,
    ):
        """See the class."""
        self.runs, self.num_draws, self.length = runs, num_draws, length
        key_pilot, self._key_data, self._key_rank = keys
        self._simulate = joint.simulator(runs.draw_prior)
        self._joint, self._quantities, self._key_pilot = joint, quantities, key_pilot

    @cached_property
    def _ranking(self) -> Ranking:
        """Made with the first batch that is not there yet."""
        firsts = range(0, NUM_PILOTS, self.length)
        drawn = [self._simulations(self._key_pilot, first, NUM_PILOTS) for first in firsts]
        pilot = jax.tree.map(lambda *parts: jnp.concatenate(parts)[:NUM_PILOTS], *drawn)
        return Ranking(self._joint, self._quantities, pilot)

    @property
    def identity(self) -> dict[str, str]:
        """What the ranks depend on, but the random key.

        What the model reads, its arguments and its priors' weights are in its fingerprint.
        """
        joint, (unknowns, data) = self._joint, self._joint.example
        ranked = program_key(
            lambda *given: values_of(joint, self._quantities, *given), unknowns, data, joint.arrays
        )
        drawn = program_key(self._simulate, jax.random.split(self._key_data, 1))
        return {
            **self.runs.identity,
            "model": drawn.fingerprint,
            "quantities": ranked.fingerprint,
            "num_draws": str(self.num_draws),
            "simulations_per_batch": str(self.length),
            "smcdiff": __version__,
        }

    def batch(self, first: int, size: int, progress: Progress | None) -> Calibration:
        """Simulates, samples and ranks.

        Args:
            first: number of the batch's first simulation.
            size: of all simulations.
            progress: called with the number of simulations that are done, of ``size``.
        """
        items = range(first, min(first + self.length, size))
        unknowns, data = jax.device_get(self._simulations(self._key_data, first, size))
        seeds = np.asarray(jax.random.key_data(self._keys(self._key_rank, first, size)))
        ranking, ranked, failures = self._ranking, {}, {}

        def shown(t: int, num_steps: int, info: dict[str, Any]) -> None:
            if progress is not None:
                progress(first + len(items) * t // num_steps, size, info)

        for item, drawn in self.runs.posteriors(items, data, shown if progress else False):
            if isinstance(drawn, SamplingError):
                failures[item] = str(drawn)
                continue
            place = item - first
            truth, seen = jax.tree.map(lambda a, i=place: np.asarray(a[i]), (unknowns, data))
            random = np.random.default_rng(seeds[place])
            ranked[item] = drawn.effective, *ranking.rank(random, truth, drawn.values, seen)
        shown(1, 1, {})
        return Calibration(
            ranks=_columns(ranking.names, [row[1] for row in ranked.values()]),
            tarp_ranks=_columns(ranking.tarp_names, [row[2] for row in ranked.values()]),
            simulations=np.array(list(ranked), int),
            effective_draws=np.array([row[0] for row in ranked.values()], float),
            num_draws=self.num_draws,
            failures=failures,
        )

    def kept(self, folder: Path, first: int, size: int, progress: Progress | None) -> Calibration:
        """The same from its file, where that holds all of it; else it is written."""
        file = folder / f"simulations-{first:06d}.npz"
        last = min(first + self.length, size)
        if file.exists():
            there = Calibration.load(file)
            if len(there.simulations) + len(there.failures) >= last - first:
                if progress is not None:
                    progress(last, size, {})
                return Calibration(**limited(there, last))
        made = self.batch(first, size, progress)
        made.save(file, overwrite=True)
        return made

    def _simulations(self, key: PRNGKeyArray, first: int, size: int) -> Simulation:
        return self._simulate(self._keys(key, first, size))

    def _keys(self, key: PRNGKeyArray, first: int, size: int) -> Key[Array, " batch"]:
        """Of a batch; the last one is filled up with copies, so that one program serves all."""
        items = np.minimum(np.arange(first, first + self.length), size - 1)
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, items)


def _columns(names: list[str], rows: list[dict[str, int]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows], int) for name in names}
