"""The particle filter: propose, weigh, watch the effective sample size, resample.

For a Feynman-Kac model (see `smcdiff.smc.feynman_kac`) and N particles with normalised weights W,

    t = 0:   X_0^i ~ M_0,  w_0^i = G_0(X_0^i) / N
    t >= 1:  if ESS(W_{t-1}) < threshold N: resample ancestors A^i from W_{t-1}, and V^i = 1/N;
             otherwise A^i = i and V^i = W_{t-1}^i
             X_t^i ~ M_t(X_{t-1}^{A^i}, .),  w_t^i = V^i G_t(X_{t-1}^{A^i}, X_t^i)
    always:  L_t / L_{t-1} ~ sum_i w_t^i,  W_t = w_t / sum w_t,  ESS = 1 / sum_i (W_t^i)^2.

The product of the sums is an unbiased estimate of the evidence L_T, whatever the threshold (Del
Moral, Doucet and Jasra 2012). Weights stay in log space; the sum of log increments is compensated,
so that float32 keeps its last digit over thousands of steps. Resampling happens before a move and
never after the last one: the returned particles carry their weights.

One ``lax.scan`` over the steps; chains and particles are mapped inside its body. Every (chain,
step, particle) has its own random key, so that the way particles are batched changes no number.

References:
    N. J. Gordon, D. J. Salmond and A. F. M. Smith (1993), IEE Proc. F 140, 107.
    P. Del Moral, A. Doucet and A. Jasra (2012), On adaptive resampling strategies for sequential
    Monte Carlo methods, Bernoulli 18, 252.
    N. Chopin and O. Papaspiliopoulos (2020), An Introduction to Sequential Monte Carlo, Springer,
    algorithm 10.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from smcdiff.errors import InputError
from smcdiff.smc import feynman_kac
from smcdiff.smc import resampling as schemes
from smcdiff.smc.feynman_kac import FeynmanKac, FusedFeynmanKac
from smcdiff.smc.genealogy import count_founders
from smcdiff.smc.keys import unrolled
from smcdiff.smc.result import FilterResult, StepInfo


class _State(NamedTuple):
    """The scan's carry; every leaf has the chain axis in front where there are chains."""

    particles: PyTree
    log_weights: Array
    founders: Array
    num_founders: Array
    ess: Array
    log_evidence: Array
    compensation: Array
    failed_step: Array


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The static side of a run."""

    num_particles: int
    num_steps: int
    num_chains: int | None
    resampler: schemes.Resampler
    ess_threshold: float | Array
    weighted: bool
    batch_size: int | None
    collect: Callable | None
    progress: Callable | None
    store_ancestors: bool
    from_blank: bool
    dtype: Any

    @property
    def needs_ancestors(self) -> bool:
        return self.store_ancestors or self.collect is not None

    def over_chains(self, function: Callable, in_axes: Any = 0) -> Callable:
        """``function`` of one chain, mapped over chains where there are any."""
        return function if self.num_chains is None else jax.vmap(function, in_axes)

    def over_particles(self, function: Callable, *trees: PyTree) -> PyTree:
        """``function`` of one particle, mapped over all particles of all chains.

        The fence keeps XLA from fusing the model into the sums over particles, whose rounding
        would then depend on how the particles are batched.
        """
        if self.num_chains is not None:
            trees = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), trees)
        total = self.num_particles * (self.num_chains or 1)
        if self.batch_size is None or self.batch_size >= total:
            out = jax.vmap(function)(*trees)
        else:
            out = jax.lax.map(lambda args: function(*args), trees, batch_size=self.batch_size)
        if self.num_chains is not None:
            shape = (self.num_chains, self.num_particles)
            out = jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), out)
        return jax.lax.optimization_barrier(out)


def particle_filter(
    key: PRNGKeyArray,
    model: FeynmanKac | FusedFeynmanKac,
    num_particles: int,
    num_steps: int,
    *,
    num_chains: int | None = None,
    resampling: str | schemes.Resampler = schemes.systematic,
    ess_threshold: float | Float[Array, " steps"] = 0.5,
    weighted: bool = True,
    batch_size: int | None = None,
    collect: Callable[[StepInfo, PyTree, Float[Array, " n"]], PyTree] | None = None,
    progress: Callable[[int, int, dict], None] | None = None,
    store_ancestors: bool = False,
) -> FilterResult:
    """Runs a particle filter. Traceable: jit it with all but ``key`` and ``model`` static.

    Args:
        key: random key; the same key gives the same random numbers whatever ``batch_size``,
            ``collect`` and ``progress``; matrix products of other sizes may round differently.
        model: the Feynman-Kac model, on one particle.
        num_particles: N, a chain.
        num_steps: T; there are T + 1 weightings, at t = 0, ..., T.
        num_chains: independent runs side by side; None is one run without a chain axis, and then
            the choice to resample is a branch, not a select.
        resampling: a function ``(rng_key, weights, num_samples) -> int32 indices`` or the name of
            one in `smcdiff.smc.resampling`.
        ess_threshold: resample when the ESS is below this fraction of N; 0 never does, 1 always.
            An array (num_steps + 1,) has one fraction for each move, the first unused: evidence is
            unbiased for any fractions that do not depend on the particles.
        weighted: False takes every weight as one: the model's moves alone, no resampling and no
            evidence.
        batch_size: at most this many particles (over all chains) are mapped at once.
        collect: ``(info, particles, log_weights) -> pytree`` on one chain after each step; what it
            returns is stacked. None stores no particles but the last.
        progress: called on the host as ``progress(t, num_steps, {"ess": ..., "num_founders": ...,
            "log_evidence": ...})`` at most about 100 times a run.
        store_ancestors: keep the ancestor indices of every step.

    Returns:
        The result; see `FilterResult`. A failed chain is marked in ``failed_step``: look at it.

    Raises:
        InputError: a setting out of range, or a model that does not fit the protocol.
    """
    _check_settings(num_particles, num_steps, num_chains, ess_threshold, batch_size)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    settings = _Settings(
        num_particles=num_particles,
        num_steps=num_steps,
        num_chains=num_chains,
        resampler=schemes.get(resampling),
        ess_threshold=ess_threshold,
        weighted=weighted,
        batch_size=batch_size,
        collect=collect,
        progress=progress,
        store_ancestors=store_ancestors,
        from_blank=hasattr(model, "blank"),
        dtype=feynman_kac.check(model, unrolled(key)),
    )
    if num_chains is not None:
        key = jax.random.split(key, num_chains)

    def body(state, t):
        return _later_step(key, model, settings, state, t)

    if settings.from_blank:
        state = _initial_state(_blanks(model, settings), settings)
        steps = jnp.arange(num_steps + 1, dtype=jnp.int32)
        state, (info, collected) = jax.lax.scan(body, state, steps)
    else:
        state, first = _first_step(key, model, settings)
        steps = jnp.arange(1, num_steps + 1, dtype=jnp.int32)
        state, later = jax.lax.scan(body, state, steps)
        info, collected = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later)
    if num_chains is not None:
        info, collected = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), (info, collected))
    log_evidence = state.log_evidence + state.compensation
    return FilterResult(
        particles=state.particles,
        log_weights=state.log_weights,
        log_evidence=log_evidence if weighted else jnp.full_like(log_evidence, jnp.nan),
        founders=state.founders,
        ess=info.ess,
        log_evidence_increments=info.log_evidence_increment,
        resampled=info.resampled,
        num_founders=info.num_founders,
        ancestors=info.ancestors,
        collected=collected,
        failed_step=state.failed_step,
    )


def _first_step(key, model, settings: _Settings):
    """Step 0: the state, and what the step leaves behind."""
    n, t = settings.num_particles, jnp.int32(0)
    keys = settings.over_chains(lambda k: _step_keys(k, t, n)[1])(key)
    particles, log_weights = settings.over_particles(lambda k: feynman_kac.start(model, k), keys)
    state = _initial_state(particles, settings)
    ancestors = state.founders if settings.needs_ancestors else None
    resampled = jnp.zeros(state.ess.shape, bool)
    return _weigh(settings, t, state, state.particles, log_weights, resampled, ancestors)


def _blanks(model, settings: _Settings) -> PyTree:
    """Blank particles; step 0 turns them into draws."""
    leading = (settings.num_particles,)
    if settings.num_chains is not None:
        leading = (settings.num_chains, *leading)
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (*leading, *jnp.shape(a))), model.blank())


def _initial_state(particles: PyTree, settings: _Settings) -> _State:
    """Equally weighted particles, each its own founder."""
    n, dtype = settings.num_particles, settings.dtype
    chains = () if settings.num_chains is None else (settings.num_chains,)
    return _State(
        particles=_strongly_typed(particles),
        log_weights=jnp.full((*chains, n), -jnp.log(n), dtype),
        founders=jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (*chains, n)),
        num_founders=jnp.full(chains, n, jnp.int32),
        ess=jnp.full(chains, n, dtype),
        log_evidence=jnp.zeros(chains, dtype),
        compensation=jnp.zeros(chains, dtype),
        failed_step=jnp.full(chains, -1, jnp.int32),
    )


def _later_step(key, model, settings: _Settings, state: _State, t):
    """A step of the scan: t >= 1, and 0 where particles start as blanks."""
    n = settings.num_particles
    key_resample, keys = settings.over_chains(lambda k: _step_keys(k, t, n))(key)
    state, ancestors, resampled = _resample(settings, key_resample, state, t)
    particles, log_weights = settings.over_particles(
        lambda k, x: feynman_kac.propose(model, k, t, x), keys, state.particles
    )
    particles = _strongly_typed(particles)
    return _weigh(settings, t, state, particles, log_weights, resampled, ancestors)


def _step_keys(key, t, num_particles: int):
    """The resampling key of a step and one key a particle."""
    key_resample, key_move = jax.random.split(jax.random.fold_in(key, t))
    return key_resample, unrolled(jax.random.split(key_move, num_particles))


def _resample(settings: _Settings, key, state: _State, t):
    """Resamples the chains whose ESS is below the threshold, but never blanks."""
    n, threshold = settings.num_particles, settings.ess_threshold

    def resample(key, state: _State):
        failed = state.failed_step >= 0  # NaN weights: any indices will do
        weights = jnp.where(failed, 1.0 / n, jnp.exp(state.log_weights))
        ancestors = settings.resampler(key, weights, n).astype(jnp.int32)
        founders = state.founders[ancestors]
        state = state._replace(
            particles=jax.tree.map(lambda a: a[ancestors], state.particles),
            log_weights=jnp.full_like(state.log_weights, -jnp.log(n)),
            founders=founders,
            num_founders=count_founders(founders, schemes.returns_sorted(settings.resampler)),
        )
        return state, ancestors if settings.needs_ancestors else None

    def keep(key, state: _State):
        ancestors = jnp.arange(n, dtype=jnp.int32) if settings.needs_ancestors else None
        return state, ancestors

    resample, keep = settings.over_chains(resample), settings.over_chains(keep)
    if jnp.ndim(threshold) > 0:
        threshold = jnp.asarray(threshold)[t]
    never = isinstance(threshold, float | int) and threshold == 0
    if not settings.weighted or never:
        return *keep(key, state), jnp.zeros(state.ess.shape, bool)
    always = isinstance(threshold, float | int) and threshold == 1
    if always and not settings.from_blank:
        return *resample(key, state), jnp.ones(state.ess.shape, bool)
    low = (state.ess < threshold * n) | (threshold == 1.0)
    if settings.from_blank:
        low &= t > 0
    if settings.num_chains is None:
        return *jax.lax.cond(low, resample, keep, key, state), low

    def resample_some(key, state):
        def choose(a, b):
            return jnp.where(low.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        return jax.tree.map(choose, resample(key, state), keep(key, state))

    # The branch outside the chains' vmap stays a branch: steps where no chain resamples are cheap.
    return *jax.lax.cond(jnp.any(low), resample_some, keep, key, state), low


def _weigh(settings: _Settings, t, state: _State, particles, log_weights, resampled, ancestors):
    """The new state after a move, and (info without t, collected)."""

    def chain(state: _State, log_weights):
        if not settings.weighted:
            return state, jnp.zeros_like(state.ess)
        return _reweigh(t, state, log_weights.astype(settings.dtype))

    state, increment = settings.over_chains(chain)(state._replace(particles=particles), log_weights)
    state, increment = jax.lax.optimization_barrier((state, increment))  # nor what is collected
    info = StepInfo(t, state.ess, increment, resampled, ancestors, state.num_founders)
    collected = None
    if settings.collect is not None:
        axes = (StepInfo(None, 0, 0, 0, 0, 0), 0, 0)  # pyright: ignore[reportArgumentType]
        collect = settings.over_chains(settings.collect, axes)
        collected = collect(info, state.particles, state.log_weights)
    if settings.progress is not None:
        _report(settings, info, state)
    stored = ancestors if settings.store_ancestors else None
    return state, (info._replace(t=None, ancestors=stored), collected)


def _reweigh(t, state: _State, log_potential) -> tuple[_State, Array]:
    """Multiplies the weights by the potentials, normalises, and adds to the evidence."""
    log_weights = state.log_weights + log_potential
    top = jnp.max(log_weights)  # NaN if any weight is
    weights = jnp.exp(log_weights - top)
    total = schemes.total(weights)
    # blackjax.smc.ess has the same formula, but importing it takes longer than our whole package.
    ess = total**2 / schemes.total(weights**2)
    increment = jnp.where(top == -jnp.inf, -jnp.inf, top + jnp.log(total))
    failed_before = state.failed_step >= 0
    failed = failed_before | ~jnp.isfinite(increment)
    log_evidence, compensation = _add(state.log_evidence, state.compensation, increment)
    state = state._replace(
        log_weights=jnp.where(failed, jnp.nan, log_weights - increment),
        ess=jnp.where(failed, jnp.nan, ess),
        # A chain that failed keeps the evidence it failed with: zero, or NaN.
        log_evidence=jnp.where(failed_before, state.log_evidence, log_evidence),
        compensation=jnp.where(failed, 0.0, compensation),
        failed_step=jnp.where(failed & ~failed_before, t, state.failed_step),
    )
    return state, jnp.where(failed_before, jnp.nan, increment)


def _add(total, compensation, term):
    """Neumaier's compensated addition: the sum is ``total + compensation``."""
    new = total + term
    swap = jnp.abs(term) > jnp.abs(total)
    large, small = jnp.where(swap, term, total), jnp.where(swap, total, term)
    return new, compensation + ((large - new) + small)


def _report(settings: _Settings, info: StepInfo, state: _State) -> None:
    """Calls ``progress`` from the host at about 100 steps of the run."""
    num_steps, progress = settings.num_steps, settings.progress
    every = -(-num_steps // 100)

    def on_host(t, ess, num_founders, log_evidence):
        progress(  # pyright: ignore[reportOptionalCall]
            int(t),
            num_steps,
            {"ess": ess, "num_founders": num_founders, "log_evidence": log_evidence},
        )

    def call():
        jax.debug.callback(on_host, info.t, info.ess, info.num_founders, state.log_evidence)

    jax.lax.cond((info.t % every == 0) | (info.t == num_steps), call, lambda: None)


def _strongly_typed(particles: PyTree) -> PyTree:
    """Drops weak types, which may differ between the first step and the later ones."""
    return jax.tree.map(
        lambda a: a.astype(a.dtype) if getattr(a, "weak_type", False) else a, particles
    )


def _check_settings(num_particles, num_steps, num_chains, ess_threshold, batch_size) -> None:
    """Raises unless the settings are in range."""
    counts = {"num_particles": num_particles}
    if num_chains is not None:
        counts["num_chains"] = num_chains
    if batch_size is not None:
        counts["batch_size"] = batch_size
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"particle_filter: {name} is {value}; it must be at least 1")
    if num_steps < 0:
        raise InputError(f"particle_filter: num_steps is {num_steps}; it must be at least 0")
    if jnp.ndim(ess_threshold) > 0:
        if jnp.shape(ess_threshold) != (num_steps + 1,):
            raise InputError(
                f"particle_filter: ess_threshold has shape {jnp.shape(ess_threshold)}; give one"
                f" number, or one for each of the {num_steps + 1} weightings"
            )
    elif not 0.0 <= ess_threshold <= 1.0:
        raise InputError(
            f"particle_filter: ess_threshold is {ess_threshold}; it must lie in [0, 1]"
        )
