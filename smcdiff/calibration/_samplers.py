"""Equally weighted draws of whatever sampler is calibrated, one posterior after the other."""

from __future__ import annotations

import abc
import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Shaped

from smcdiff.base._progress import Progress
from smcdiff.calibration._joint import (
    DrawPrior,
    Joint,
    from_chain,
    from_chain_of_product,
    from_prior,
)
from smcdiff.diffusion.kernels import AnalyticDPM
from smcdiff.errors import DegeneracyWarning, InputError, SamplingError
from smcdiff.priors.product import Product
from smcdiff.problem import ReverseModel
from smcdiff.results import _weighted as averages
from smcdiff.results._particles import WeightedParticles
from smcdiff.sampler._catalogue import Catalogue
from smcdiff.sampler._sampler import Sampler
from smcdiff.sampler.smc import SMC
from smcdiff.smc.checkpoint import digest
from smcdiff.smc.resampling import systematic

Data = Mapping[str, Shaped[np.ndarray, "n ..."]]


class Drawn(NamedTuple):
    """Draws of one posterior.

    Attributes:
        values: latent site -> (L, *event), equally weighted, on the host.
        effective: effective number of particles that they come from.
    """

    values: dict[str, Shaped[np.ndarray, "..."]]
    effective: float


class Runs(abc.ABC):
    """Runs a sampler on simulated data.

    Attributes:
        draw_prior: how the sampler's own prior is drawn from.
        identity: what makes the results, besides the model and the key.
    """

    draw_prior: DrawPrior
    identity: dict[str, str]

    @abc.abstractmethod
    def posteriors(
        self, items: Sequence[int], data: Data, progress: bool | Progress
    ) -> Iterator[tuple[int, Drawn | SamplingError]]:
        """The posteriors of some simulations, or why there is none.

        Args:
            items: numbers of the simulations, one after the other.
            data: of these simulations; copies behind them fill it up to always the same size.
            progress: as that of `SMC`, over these simulations.
        """


def runs_of(
    sampler: Any, joint: Joint, key: PRNGKeyArray, num_draws: int, num_simulations: int
) -> Runs:
    """How a sampler is run.

    Args:
        sampler: an `SMC`, something with its ``run``, or a function of a key and the data.
        joint: the model that is simulated from.
        key: random key; simulation i has ``jax.random.fold_in(key, i)``.
        num_draws: L.
        num_simulations: all of them.

    Raises:
        InputError: no sampler, or one that cannot give as many draws, or whose settings do not fit
            the model.
    """
    if isinstance(sampler, SMC):
        return _Batches(sampler, joint, key, num_draws, num_simulations)
    if callable(getattr(sampler, "run", None)) or callable(sampler):
        return _OneByOne(sampler, joint, key, num_draws)
    raise InputError(
        f"calibrate: the sampler is a {type(sampler).__name__}; pass a smcdiff.SMC, or a function"
        " of a random key and the data by site that returns draws, {site: (n, *event)}"
    )


class _Batches(Runs):
    """`SMC`: all simulations of a batch in one compiled call; see `Runs`."""

    def __init__(
        self, smc: SMC, joint: Joint, key: PRNGKeyArray, num_draws: int, num_simulations: int
    ):
        self._joint, self._num_draws, self._size = joint, num_draws, num_simulations
        self._key, self._key_draws = jax.random.split(key)
        self._sampler = smc._sampler
        settings = smc.settings
        particles = settings.num_particles * settings.num_chains
        if particles < num_draws:
            raise InputError(
                f"calibrate: num_draws is {num_draws}, and a posterior has {particles} particles;"
                " take fewer draws, or more particles"
            )
        self.draw_prior = _chain(smc._sampler, joint)
        problem = _reverse_model(smc._sampler, joint).problem
        self.identity = {
            "sampler": "SMC",
            **settings.described(),
            "sampler's model": problem.fingerprint,
            "sampler's prior": digest(problem.prior),
        }

    def posteriors(
        self, items: Sequence[int], data: Data, progress: bool | Progress
    ) -> Iterator[tuple[int, Drawn | SamplingError]]:
        """See `Runs`."""
        rows = {
            name: _Rows(items[0], self._size, array)
            for name, array in self._joint.as_arguments(data).items()
        }
        args, kwargs = self._joint.fixed.rebuild(self._joint.arrays)
        sampler = dataclasses.replace(self._sampler, progress=progress)
        catalogue = Catalogue(sampler, self._key, rows, args, kwargs, None, None)
        length = len(next(iter(data.values())))
        with _without_warnings():
            found = catalogue.run([*items, *[items[0]] * (length - len(items))])
        for item in items:
            result = found[item]
            if isinstance(result, InputError):
                raise result
            if not isinstance(result, SamplingError):
                key = jax.random.fold_in(self._key_draws, item)
                result = _of_posterior(key, result, self._joint, self._num_draws)
            yield item, result


class _Rows:
    """The data of a batch of simulations, as `Catalogue` asks for those of all: by number."""

    def __init__(self, first: int, size: int, values: np.ndarray):
        self._first, self._values = first, values
        self.shape = (size, *values.shape[1:])

    def __getitem__(self, item: int) -> np.ndarray:
        return self._values[item - self._first]


class _OneByOne(Runs):
    """Any other sampler, one simulation after the other; see `Runs`."""

    def __init__(self, sampler: Any, joint: Joint, key: PRNGKeyArray, num_draws: int):
        self._sampler, self._joint, self._num_draws = sampler, joint, num_draws
        self._key, self._key_draws = jax.random.split(key)
        # What runs a reverse chain, as SMC does, is held to the prior of that chain.
        own = getattr(sampler, "_sampler", None)
        self.draw_prior = _chain(own, joint) if isinstance(own, Sampler) else from_prior
        name = getattr(sampler, "__qualname__", type(sampler).__qualname__)
        self.identity = {"sampler": name}

    def posteriors(
        self, items: Sequence[int], data: Data, progress: bool | Progress
    ) -> Iterator[tuple[int, Drawn | SamplingError]]:
        """See `Runs`."""
        for place, item in enumerate(items):
            own = {name: jnp.asarray(array[place]) for name, array in data.items()}
            try:
                with _without_warnings():
                    result = self._draw(item, own)
            except SamplingError as error:
                result = error
            yield item, result
            if callable(progress):
                progress(place + 1, len(items), {})

    def _draw(self, item: int, data: dict[str, Array]) -> Drawn:
        joint, count = self._joint, self._num_draws
        key, key_draws = (jax.random.fold_in(k, item) for k in (self._key, self._key_draws))
        if callable(getattr(self._sampler, "run", None)):
            args, kwargs = joint.fixed.rebuild(joint.arrays)
            posterior = self._sampler.run(key, *args, **(kwargs | joint.as_arguments(data)))
            return _of_posterior(key_draws, posterior, joint, count)
        return _of_draws(key_draws, self._sampler(key, data), joint, count)


def _without_warnings() -> warnings.catch_warnings:
    """The table tells how degenerate the runs were, of all of them at once."""
    return warnings.catch_warnings(action="ignore", category=DegeneracyWarning)


def _reverse_model(sampler: Sampler, joint: Joint) -> ReverseModel:
    """What a sampler steers on data of the example's shape."""
    args, kwargs = joint.fixed.rebuild(joint.arrays)
    problem = sampler.read(args, kwargs | joint.as_arguments(joint.example.data))
    return sampler.assemble(problem, sampler.choose(problem)[0])


def _chain(sampler: Sampler, joint: Joint) -> DrawPrior:
    """Draws by the reverse chain that the sampler would run on the model that is simulated from."""
    model = _reverse_model(dataclasses.replace(sampler, model=joint.model), joint)
    layout, prior = model.problem.layout, model.problem.prior
    if isinstance(prior, Product):
        if isinstance(model.kernel, AnalyticDPM) and len(prior.parts) > 1:
            raise InputError(
                "calibrate: kernels.AnalyticDPM moves several diffusion sites by their average"
                " denoising error, so that no site can be drawn by itself; use kernels.DDIM()"
            )
        schedule = prior.schedule
        return jax.tree_util.Partial(from_chain_of_product, model.kernel, model.levels, schedule)
    if layout.joins_sites:  # multiplied out, and exact
        return from_prior
    return jax.tree_util.Partial(from_chain, model.kernel, model.levels)


def _of_posterior(
    key: PRNGKeyArray, posterior: WeightedParticles, joint: Joint, count: int
) -> Drawn:
    """Equally weighted draws of a weighted posterior.

    The particles are put in random order first: in their own, those of one ancestor lie beside each
    other, and systematic resampling would make strata of them, whose ranks are not uniform.
    """
    key_order, key_draw = jax.random.split(key)
    weights = posterior.pooled_weights.ravel()
    order = jax.random.permutation(key_order, weights.size)
    shuffled = jnp.asarray(weights, jnp.result_type(float))[order]
    chosen = np.asarray(order[systematic(key_draw, shuffled, count)])
    _check_sites(posterior.samples, joint)
    values = {name: posterior.pooled(name)[chosen] for name in joint.unknowns}
    return Drawn(values, averages.effective_number(weights))


def _of_draws(key: PRNGKeyArray, found: Any, joint: Joint, count: int) -> Drawn:
    """As many of the draws that a function has returned, in random order.

    Raises:
        InputError: not what was asked for.
        SamplingError: draws that are not finite.
    """
    if not isinstance(found, Mapping):
        raise InputError(
            f"calibrate: the sampler returns a {type(found).__name__}; return draws by site,"
            " {site: (n, *event)}"
        )
    _check_sites(found, joint)
    shapes = {name: np.shape(found[name]) for name in joint.unknowns}
    number = min(shape[0] if shape else 0 for shape in shapes.values())
    for name, shape in shapes.items():
        event = jnp.shape(joint.example.unknowns[name])
        if shape != (number, *event):
            raise InputError(
                f"calibrate: the sampler returns {shape} for site '{name}'; its draws have shape"
                f" (n, *event) with event {event}, and n the same for all sites"
            )
    if number < count:
        raise InputError(
            f"calibrate: num_draws is {count}, and the sampler returns {number}; return more, or"
            " take fewer"
        )
    for name in joint.unknowns:
        if not np.all(np.isfinite(found[name])):
            raise SamplingError(f"site '{name}': draws are not finite")
    chosen = np.asarray(jax.random.permutation(key, number)[:count])
    values = {name: np.asarray(found[name])[chosen] for name in joint.unknowns}
    return Drawn(values, float(number))


def _check_sites(found: Mapping[str, Any], joint: Joint) -> None:
    missing = [name for name in joint.unknowns if name not in found]
    if missing:
        raise InputError(
            f"calibrate: the sampler gives no draws of the sites {missing}, which the model draws;"
            f" it gives {sorted(found)}. If they are data, name them in data_arguments"
        )
