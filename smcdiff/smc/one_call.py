"""`particle_filter`: a run in one call."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree, Shaped

from smcdiff.smc import resampling as schemes
from smcdiff.smc.checkpoint import Checkpoint
from smcdiff.smc.feynman_kac import FeynmanKac
from smcdiff.smc.filter import ParticleFilter
from smcdiff.smc.segments import (
    NO_HOOKS,
    Collect,
    Hooks,
    Progress,
    is_made_of_arrays,
    is_traced,
    run_in_segments,
)
from smcdiff.smc.state import FilterResult


def particle_filter(
    key: PRNGKeyArray,
    model: FeynmanKac,
    num_particles: int,
    num_steps: int,
    *,
    num_chains: int | None = None,
    resampling: str | schemes.Resampler = "systematic",
    ess_threshold: float | int | Shaped[Array | np.ndarray, "*steps"] = 0.5,
    weighted: bool = True,
    batch_size: int | None = None,
    collect: Collect | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    mesh: Mesh | None = None,
    store_ancestors: bool = False,
    chain_axes: PyTree = None,
) -> FilterResult:
    """Runs a particle filter.

    Without ``collect``, ``progress`` and ``checkpoint`` it may be called under jit, vmap and grad.
    With them it is a loop on the host over segments of the compiled run, see
    `smcdiff.smc.segments`: an exception that they raise ends the run and leaves the last
    checkpoint, which is of that very step if ``progress`` raised it.

    Args:
        key: random key; the same key gives the same random numbers whatever ``batch_size``,
            ``mesh`` and the hooks; matrix products of other sizes may round differently.
        model: the Feynman-Kac model, on one particle.
        num_particles: N, per chain.
        num_steps: T; there are T + 1 weightings, at t = 0, ..., T.
        num_chains: independent runs side by side; None is one run without an axis of chains.
        resampling: as in `ParticleFilter`, and so are the next ones.
        ess_threshold: fraction of N, or one for each of the T + 1 weightings.
        weighted: False switches the weights off.
        batch_size: at most this many particles are mapped at once, over all chains, per device.
        collect: ``(state, info) -> pytree`` after each step, of a `FilterState` and a `StepInfo`;
            what it returns is stacked. A run that goes on from a checkpoint calls it again for the
            step of the checkpoint.
        progress: ``(t, num_steps, {"ess": ..., "num_founders": ..., "log_evidence": ...})`` after
            each segment, of about 0.2 seconds of work.
        checkpoint: a folder in which to keep the state; where it holds one of this run, the run
            goes on from there, to the same bits.
        mesh: devices to spread chains and particles over.
        store_ancestors: keep the ancestor indices of every step.
        chain_axes: as in `ParticleFilter.init`.

    Returns:
        The result; see `FilterResult`. A failed chain is marked in ``failed_step``: look at it.

    Raises:
        InputError: a setting out of range, a model that does not fit the protocol, hooks where
            Python cannot be called, or a checkpoint of another run.
    """
    settings = ParticleFilter(
        num_particles=num_particles,
        num_chains=num_chains,
        resampling=resampling,
        ess_threshold=ess_threshold,
        weighted=weighted,
        batch_size=batch_size,
        store_ancestors=store_ancestors,
        mesh=mesh,
    )
    hooks = Hooks(progress, collect, checkpoint)
    on_host = not is_traced(key, model, settings.ess_threshold) and is_made_of_arrays(model)
    if on_host or hooks != NO_HOOKS:
        return run_in_segments(settings, key, model, num_steps, chain_axes=chain_axes, hooks=hooks)
    return settings.run(key, model, num_steps, chain_axes=chain_axes)
