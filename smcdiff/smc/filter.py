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

A filter takes one step at a time, `ParticleFilter.init` and `ParticleFilter.step`; a run is a loop
of them, here (`ParticleFilter.run`) or in segments on the host (`smcdiff.smc.segments`). Every
(chain, step, particle) has its own random key, so that the way particles are batched, and the
devices that they live on, change no random number. Where no chain resamples at a step, a branch
skips the work.

References:
    N. J. Gordon, D. J. Salmond and A. F. M. Smith (1993), IEE Proc. F 140, 107.
    P. Del Moral, A. Doucet and A. Jasra (2012), On adaptive resampling strategies for sequential
    Monte Carlo methods, Bernoulli 18, 252.
    N. Chopin and O. Papaspiliopoulos (2020), An Introduction to Sequential Monte Carlo, Springer,
    algorithm 10.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from smcdiff.base.module import Module, set_fields, static
from smcdiff.smc import _keys as keys
from smcdiff.smc import _settings as settings
from smcdiff.smc import devices, feynman_kac
from smcdiff.smc import resampling as schemes
from smcdiff.smc._chains import Chains, leaf_axes
from smcdiff.smc._rows import move_rows
from smcdiff.smc._weights import Weights, reweigh
from smcdiff.smc.feynman_kac import FeynmanKac
from smcdiff.smc.genealogy import count_founders, log_apart
from smcdiff.smc.state import (
    FilterResult,
    FilterState,
    Record,
    StepInfo,
    with_axis,
    without_axis,
)


class ParticleFilter(Module):
    """The settings of a particle filter, and its steps: pure functions for jit, vmap and scan.

    Attributes:
        num_particles: N, per chain.
        num_chains: independent runs side by side; None is one run without an axis of chains.
        resampling: a function ``(rng_key, weights, num_samples) -> int32 indices`` or the name of
            one in `smcdiff.smc.resampling`. The filter sorts the indices where they are not.
        ess_threshold: resample when the ESS is below this fraction of N; 0 never does, 1 always.
            An array (num_steps + 1,) has one fraction for each step, the first unused: the evidence
            is unbiased for any fractions that do not depend on the particles.
        weighted: False takes every weight as one: the model's moves alone, no resampling and no
            evidence.
        batch_size: at most this many particles are mapped at once, over all chains, per device.
        store_ancestors: keep the ancestor indices of every step.
        mesh: devices to spread chains and particles over, along axes named "chains" and
            "particles" or one of them; None is one device. See `smcdiff.smc.devices`.

    Raises:
        InputError: a setting out of range.
    """

    # Any: what is given is checked by `__post_init__`, whose errors name the remedy.
    num_particles: int | Any = static()
    num_chains: int | None | Any = static(default=None)
    resampling: Any = static(default=schemes.systematic)
    ess_threshold: float | Float[Array, " steps"] | Any = 0.5
    weighted: bool | Any = static(default=True)
    batch_size: int | None | Any = static(default=None)
    store_ancestors: bool | Any = static(default=False)
    mesh: Mesh | None | Any = static(default=None)

    def __post_init__(self):
        """Checks the settings, and converts them to one form."""
        counts = {"num_particles": self.num_particles}
        optional = {"num_chains": self.num_chains, "batch_size": self.batch_size}
        counts |= {name: value for name, value in optional.items() if value is not None}
        set_fields(self, **{name: settings.count(name, value) for name, value in counts.items()})
        for name in ("weighted", "store_ancestors"):
            set_fields(self, **{name: settings.flag(name, getattr(self, name))})
        set_fields(
            self,
            resampling=schemes.get(self.resampling),
            ess_threshold=settings.threshold(self.ess_threshold),
            mesh=devices.check(self.mesh, self.num_particles, self.num_chains),
        )

    def init(
        self, key: keys.ChainKeys, model: FeynmanKac, *, chain_axes: PyTree = None
    ) -> FilterState:
        """Draws and weighs the particles of step 0.

        Args:
            key: random key; it is part of the state, and all later steps draw from it.
            model: the Feynman-Kac model, on one particle.
            chain_axes: a tree prefix of the model, as ``in_axes`` of ``jax.vmap``: 0 for leaves
                that have a leading axis of chains, None for those that the chains share.

        Raises:
            InputError: a model that does not fit the protocol.
        """

        def first(chains: Chains, key: Key[Array, "*c"]) -> FilterState:
            return self._first(chains, key)[0]

        states, _, _ = self._specs()
        chains = self._chains(model, chain_axes)
        call = self._spread(first, chains, (devices.per_chain(self.mesh),), states)
        return self.public(call(keys.of_chains(key, self.num_chains)))

    def step(
        self, state: FilterState, model: FeynmanKac, *, chain_axes: PyTree = None
    ) -> tuple[FilterState, StepInfo]:
        """Takes one step: resamples where needed, moves, weighs.

        Args:
            state: after the step before.
            model: that of ``init``.
            chain_axes: as in ``init``.

        Returns:
            The state after the step, and what happened.
        """
        states, infos, _ = self._specs()
        chains = self._chains(model, chain_axes)
        call = self._spread(self._next, chains, (states,), (states, infos))
        return self.public(call(with_axis(state) if self.num_chains is None else state))

    def run(
        self, key: keys.ChainKeys, model: FeynmanKac, num_steps: int, *, chain_axes: PyTree = None
    ) -> FilterResult:
        """Takes all steps, in one loop.

        Args:
            key: random key.
            model: the Feynman-Kac model, on one particle.
            num_steps: T; there are T + 1 weightings, at t = 0, ..., T.
            chain_axes: as in ``init``.

        Returns:
            The result; see `FilterResult`. A failed chain is marked in ``failed_step``: look at it.

        Raises:
            InputError: a model that does not fit the protocol, or thresholds of another number.
        """
        chains = self._chains(model, chain_axes)
        held = self.begin(key, chains, num_steps)
        return self.result(*self.advance(chains, *held, 0, num_steps))

    def begin(
        self,
        key: keys.ChainKeys,
        chains: Chains,
        num_steps: int,
        last_ancestors: bool = False,
    ) -> tuple[FilterState, Record]:
        """The state of step 0 and a record for all steps, both with an axis of chains.

        Args:
            key: random key.
            chains: all of them.
            num_steps: T.
            last_ancestors: keep those of the last step even where others are not stored.
        """
        num_steps = settings.count("num_steps", num_steps, 0)
        settings.check_length(self.ess_threshold, num_steps)
        rows = num_steps + 1 if self.store_ancestors else int(last_ancestors)

        def first(chains: Chains, key: Key[Array, "*c"]) -> tuple[FilterState, Record]:
            state, info = self._first(chains, key)
            return state, Record.empty(info, num_steps, rows).write(info)

        states, _, records = self._specs()
        call = self._spread(first, chains, (devices.per_chain(self.mesh),), (states, records))
        return call(keys.of_chains(key, self.num_chains))

    def advance(
        self, chains: Chains, state: FilterState, record: Record, start: Any, end: Any
    ) -> tuple[FilterState, Record]:
        """The steps after ``start`` up to ``end``, from the state of ``start``.

        Between Python's integers the loop is a scan; ends that are traced make one program for all.
        """

        def loop(chains: Chains, *held: Any) -> tuple[FilterState, Record]:
            def body(_, held):
                state, record = held
                state, info = self._next(chains, state, record.ancestors is not None)
                return state, record.write(info)

            return jax.lax.fori_loop(start, end, body, held)

        states, _, records = self._specs()
        return self._spread(loop, chains, (states, records), (states, records))(state, record)

    def result(self, state: FilterState, record: Record) -> FilterResult:
        """The result of a run whose state and record are these."""
        return self.public(FilterResult.of(state, record, self.weighted, self.store_ancestors))

    def public(self, held: Any) -> Any:
        """What is held of all chains as the user sees it: an axis of chains where there are."""
        return held if self.num_chains is not None else without_axis(held)

    def _chains(self, model: FeynmanKac, chain_axes: PyTree) -> Chains:
        axes = leaf_axes(model, chain_axes, self.num_chains)
        return Chains.of(model, axes, self.num_chains)

    def _specs(self) -> tuple[Any, Any, Any]:
        """How a state, an info and a record lie on the mesh."""
        chain = devices.per_chain(self.mesh)
        state = FilterState(*(chain for _ in FilterState._fields))  # pyright: ignore
        state = state._replace(step=P(), particles=devices.per_particle(self.mesh))
        info = StepInfo(*(chain for _ in StepInfo._fields))._replace(t=P())  # pyright: ignore
        return state, info, P(None, *chain)

    def _spread(
        self, function: Callable, chains: Chains, in_specs: tuple, out_specs: Any
    ) -> Callable:
        """``function(chains, ...)`` on all devices, each with its chains and particles."""
        number = (self.num_chains or 1) // devices.num_devices(self.mesh, devices.CHAINS)

        def local(differing: tuple[Array, ...], *held: Any) -> Any:
            own = chains.on_device(number, differing)
            if number > 1:
                return function(own, *held)
            return with_axis(function(own, *without_axis(held)))

        in_specs = (devices.per_chain(self.mesh), *in_specs)
        return partial(devices.spread(self.mesh, local, in_specs, out_specs), chains.differing)

    # What follows runs on one device, for its chains and particles; C = () for a single chain.

    def _first(self, chains: Chains, key: Key[Array, "*c"]) -> tuple[FilterState, StepInfo]:
        """Step 0."""
        n, t, shape = self.num_particles, jnp.int32(0), key.shape
        _, own = self._keys(chains, key, t)
        dtype = feynman_kac.check(chains.example(), own[(0,) * own.ndim])
        particles, log_potentials = chains.over_particles(feynman_kac.draw, self.batch_size, own)
        state = FilterState(
            step=t,
            key=key,
            particles=particles,
            log_weights=jnp.full((*shape, n), -jnp.log(n), dtype),
            founders=jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (*shape, n)),
            num_founders=jnp.full(shape, n, jnp.int32),
            ess=jnp.full(shape, n, dtype),
            log_evidence=jnp.zeros(shape, dtype),
            compensation=jnp.zeros(shape, dtype),
            drawn_together=jnp.zeros(shape, dtype),
            failed_step=jnp.full(shape, -1, jnp.int32),
        )
        state, increment = self._weigh(chains, state, log_potentials)
        return state, _info(state, increment, jnp.zeros(shape, bool), state.founders)

    def _next(
        self, chains: Chains, state: FilterState, with_ancestors: bool = True
    ) -> tuple[FilterState, StepInfo]:
        """A later step."""
        t = state.step + 1
        key_resample, own = self._keys(chains, state.key, t)
        state, ancestors, resampled = self._resample(chains, key_resample, t, state, with_ancestors)

        def move(model: FeynmanKac, key: Key[Array, ""], prev: PyTree, *means: PyTree) -> PyTree:
            return feynman_kac.move(model, key, t, prev, *means)

        particles, log_potentials = chains.over_particles(
            move, self.batch_size, own, state.particles, *self._means(chains, state)
        )
        state = state._replace(step=t, particles=particles)
        state, increment = self._weigh(chains, state, log_potentials)
        return state, _info(state, increment, resampled, ancestors)

    def _means(self, chains: Chains, state: FilterState) -> tuple[PyTree, ...]:
        """The means of a model's statistics, for each particle; nothing where it has none."""
        if not feynman_kac.learns(chains.example()):
            return ()
        found = chains.over_particles(
            lambda model, particle: model.statistics(particle), self.batch_size, state.particles
        )
        failed = state.failed_step[..., None] >= 0  # NaN weights: any means will do
        weights = jnp.where(failed, 1.0 / self.num_particles, jnp.exp(state.log_weights))
        return (jax.tree.map(partial(devices.mean, self.mesh, weights), found),)

    def _keys(
        self, chains: Chains, key: Key[Array, "*c"], t: Int[Array, ""]
    ) -> tuple[Key[Array, "*c"], Key[Array, "*c part"]]:
        """Of a step: the keys to resample with, and those of the particles that live here."""
        platform = devices.platform(self.mesh)

        def of_chain(key: Key[Array, ""]) -> tuple[Key[Array, ""], Key[Array, " n"]]:
            return keys.of_step(key, t, self.num_particles, platform)

        key_resample, key_move = chains.over(of_chain)(key)
        return key_resample, devices.own(self.mesh, key_move)

    def _resample(
        self,
        chains: Chains,
        key: Key[Array, "*c"],
        t: Int[Array, ""],
        state: FilterState,
        with_ancestors: bool,
    ) -> tuple[FilterState, Int[Array, "*c n"] | None, Bool[Array, "*c"]]:
        """Resamples the chains whose ESS is below the threshold."""
        n, threshold = self.num_particles, self.ess_threshold
        if jnp.ndim(threshold) > 0:
            threshold = jnp.asarray(threshold)[t]
        fixed = isinstance(threshold, float)
        never, always = fixed and threshold == 0.0, fixed and threshold == 1.0
        low = jnp.full(state.ess.shape, True)
        if not always:
            low = (state.ess < threshold * n) | (threshold == 1.0)
        alone = always or self.num_chains in (None, 1)
        in_place = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), state.founders.shape)

        def keep(key, state: FilterState):
            return state, in_place if with_ancestors else None

        def resample(key, state: FilterState):
            state, ancestors = self._descend(chains, key, state, None if alone else low, in_place)
            return state, ancestors if with_ancestors else None

        if never or not self.weighted:
            return *keep(key, state), jnp.zeros_like(low)
        if always:
            return *resample(key, state), low
        some = devices.any_chain(self.mesh, low)
        return *jax.lax.cond(some, resample, keep, key, state), low

    def _descend(
        self,
        chains: Chains,
        key: Key[Array, "*c"],
        state: FilterState,
        low: Bool[Array, "*c"] | None,
        in_place: Int[Array, "*c n"],
    ) -> tuple[FilterState, Int[Array, "*c n"]]:
        """Resampled particles of equal weight, in the chains where ``low`` is True; None is all."""
        n, log_weights = self.num_particles, state.log_weights
        failed = state.failed_step >= 0  # NaN weights: any indices will do
        weights = jnp.where(failed[..., None], 1.0 / n, jnp.exp(log_weights))
        ancestors = chains.over(lambda key, w: self.resampling(key, w, n).astype(jnp.int32))
        ancestors = schemes.in_order(self.resampling, ancestors(key, weights))
        equal = jnp.full_like(log_weights, -jnp.log(n))
        if low is not None:
            ancestors = jnp.where(low[..., None], ancestors, in_place)
            equal = jnp.where(low[..., None], equal, log_weights)
        founders = chains.over(lambda founders, a: founders[a])(state.founders, ancestors)
        apart = chains.over(log_apart)
        together = apart(log_weights, state.founders) - apart(equal, founders)
        state = state._replace(
            particles=move_rows(self.mesh, chains, state.particles, ancestors),
            log_weights=equal,
            founders=founders,
            drawn_together=state.drawn_together + together,
            num_founders=chains.over(partial(count_founders, is_sorted=True))(founders),
        )
        return state, ancestors

    def _weigh(
        self, chains: Chains, state: FilterState, log_potentials: Float[Array, "*c part"]
    ) -> tuple[FilterState, Float[Array, "*c"]]:
        """The state with its weights times the potentials, and what that adds to the evidence."""
        if not self.weighted:
            return state, jnp.zeros_like(state.ess)
        log_potentials = log_potentials.astype(state.log_weights.dtype)
        log_potentials = devices.gather(self.mesh, log_potentials)
        weights = Weights(*(getattr(state, name) for name in Weights._fields))
        new = chains.over(partial(reweigh, state.step))(weights, log_potentials)
        weights, increment = new
        state = state._replace(**weights._asdict())
        # Of all: founders stay, read or not, and with them the ancestors, which XLA would otherwise
        # compute again inside what gathers the particles.
        return jax.lax.optimization_barrier((state, increment))


def _info(state: FilterState, increment: Any, resampled: Any, ancestors: Any) -> StepInfo:
    """What the step that made ``state`` leaves behind."""
    return StepInfo(state.step, state.ess, increment, resampled, ancestors, state.num_founders)
