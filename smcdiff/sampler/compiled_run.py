"""The compiled run: all chains of one problem, or of a batch of problems, in one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from smcdiff.diffusion.schedules import Level
from smcdiff.errors import InputError
from smcdiff.proposals import Proposal, ReverseModel
from smcdiff.sampler.steered_diffusion import SteeredDiffusion
from smcdiff.smc import FilterResult, particle_filter


@dataclasses.dataclass(frozen=True)
class Settings:
    """What fixes the compiled run, besides the shapes of its arguments.

    ``ess_threshold`` is None where each step has its own, ``thresholds`` of the run.
    """

    num_particles: int
    num_chains: int
    resampling: Callable
    ess_threshold: float | None
    weighted: bool
    batch_size: int | None
    store_ancestors: bool
    progress: Callable | None


class Run(NamedTuple):
    """The chains of a problem, with what the model says of their last particles.

    Attributes:
        result: of the filter, fields with a leading axis of chains; particles are flat events.
        computed: deterministic sites of the model, name -> (chains, particles, *shape).
        log_likelihood: observed sites, name -> (chains, particles, *batch shape).
    """

    result: FilterResult
    computed: dict[str, jax.Array]
    log_likelihood: dict[str, jax.Array]


def _run_chains(
    keys: PRNGKeyArray,
    model: ReverseModel,
    proposal: Proposal,
    thresholds: Float[Array, " steps"] | None,
    settings: Settings,
) -> Run:
    """All chains."""
    num_steps = model.num_steps
    threshold = thresholds if settings.ess_threshold is None else settings.ess_threshold
    assert threshold is not None
    batch_size = settings.batch_size
    if batch_size is not None:  # chains run side by side
        batch_size = max(1, batch_size // settings.num_chains)

    def run_chain(key):
        key_prepare, key_filter = jax.random.split(key)
        shared = proposal.prepare(key_prepare, model)
        result = particle_filter(
            key_filter,
            SteeredDiffusion(proposal, model, shared),
            settings.num_particles,
            num_steps,
            resampling=settings.resampling,
            ess_threshold=threshold,
            weighted=settings.weighted,
            batch_size=batch_size,
            store_ancestors=settings.store_ancestors,
            progress=settings.progress,
        )
        x = result.particles[0]
        described = jax.lax.map(model.describe, x, batch_size=batch_size or len(x))
        return Run(result._replace(particles=x), *described)

    if settings.num_chains == 1:  # without vmap the choice to resample stays a branch
        return jax.tree.map(lambda a: a[None], run_chain(keys[0]))
    return jax.vmap(run_chain)(keys)


@jax.jit(static_argnames=("settings",))
def run(keys, model, proposal, thresholds, settings):
    """The chains of one problem, a key each; see `Settings` for ``thresholds``."""
    return _run_chains(keys, model, proposal, thresholds, settings)


@jax.jit(static_argnames=("mapped", "settings"))
def run_batch(keys, model, mapped, proposal, thresholds, settings):
    """The chains of the problems that `stack` has put together, keys of shape (items, chains)."""
    leaves, structure = jax.tree.flatten(model)
    axes = [0 if is_mapped else None for is_mapped in mapped]

    def run_one(keys, leaves):
        model = jax.tree.unflatten(structure, leaves)
        return _run_chains(keys, model, proposal, thresholds, settings)

    return jax.vmap(run_one, in_axes=(0, axes))(keys, leaves)


def _equal(first: Level, second: Level) -> bool:
    return all(bool(jnp.array_equal(a, b)) for a, b in zip(first, second, strict=True))


def stack(models: list[ReverseModel]) -> tuple[ReverseModel, tuple[bool, ...]]:
    """Several reverse models as one, with a leading axis on the leaves in which they differ.

    Arguments that the items share are the same arrays. Levels are equal where the items share the
    prior's schedule; on an axis of their own the conditionals on them would run both branches.
    """
    levels = models[0].levels
    if all(_equal(model.levels, levels) for model in models):
        models = [dataclasses.replace(model, levels=levels) for model in models]
    flat = [jax.tree.flatten(model) for model in models]
    if any(structure != flat[0][1] for _, structure in flat):
        raise InputError(
            "run_batch: the items give models of different structure; observations must have the"
            " same shapes and the same masked pattern of sites"
        )
    columns = list(zip(*(leaves for leaves, _ in flat), strict=True))
    if any(jnp.shape(leaf) != jnp.shape(column[0]) for column in columns for leaf in column):
        raise InputError("run_batch: the items have arrays of different shapes")

    def is_shared(column):
        return all(leaf is column[0] for leaf in column[1:])

    mapped = tuple(not is_shared(column) for column in columns)
    leaves = [
        jnp.stack(column) if is_mapped else column[0]
        for column, is_mapped in zip(columns, mapped, strict=True)
    ]
    return jax.tree.unflatten(flat[0][1], leaves), mapped
