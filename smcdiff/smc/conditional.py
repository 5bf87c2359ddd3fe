"""The conditional particle filter: a Markov kernel on the paths of a Feynman-Kac model.

One of the N particles is held to a given path, the others are drawn, weighed and resampled about
it, and a new path is drawn by the last weights. That leaves the law of the path, Q_T(dx_{0:T}) of
`smcdiff.smc.feynman_kac`, as it is, for any N >= 2 (Andrieu, Doucet and Holenstein 2010): a filter
is right as N grows, this kernel as it is applied again and again.

Slot 0 holds the path. Where the particles are resampled,

* the path chooses a new past, i with probability ~ W^i M_t(X^i, x'_t) G_t(X^i, x'_t), x' being the
  path (ancestor sampling, Lindsten, Jordan and Schoen 2014). Where M_t has no density, as a step
  that is a function of the state before, the path keeps its own;
* the others are drawn by systematic resampling given that slot 0 has the ancestor that it has, the
  particles being put in random order before: see `conditional_systematic`.

Resampling may be adaptive. Whether a step resamples is a symmetric function of all weights, that of
the path among them. Between two resamplings a particle keeps its slot, so a stretch without
resampling is one long step of the model, and how many stretches there are is known where each of
them begins. Summed over the slots of the path, which is N at each resampling, the weight 1/N of an
ancestor drawn by systematic resampling cancels, whichever steps resample; the proof of the three
papers goes through stretch by stretch.

References:
    C. Andrieu, A. Doucet and R. Holenstein (2010), Particle Markov chain Monte Carlo methods,
    J. R. Stat. Soc. B 72, 269.
    F. Lindsten, M. I. Jordan and T. B. Schoen (2014), Particle Gibbs with ancestor sampling,
    J. Mach. Learn. Res. 15, 2145.
    N. Chopin and S. S. Singh (2015), On particle Gibbs sampling, Bernoulli 21, 1855 (conditional
    systematic resampling).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from smcdiff.base.module import Module, static
from smcdiff.smc import _keys as keys


@runtime_checkable
class PathModel(Protocol):
    """A Feynman-Kac model that can be held to a path; nothing needs to inherit from this class.

    On one particle, as `smcdiff.smc.FeynmanKac`. The path is made of traces: what of a particle
    tells where it is. Whatever else it carries is made again from the trace.
    """

    def init(self, key: PRNGKeyArray, kept: PyTree, is_held: Bool[Array, ""]) -> PyTree:
        """A particle of step 0: drawn from M_0, or where ``is_held`` the one at ``kept``."""
        ...

    def step(
        self,
        key: PRNGKeyArray,
        t: Int[Array, ""],
        prev: PyTree,
        kept: PyTree,
        is_held: Bool[Array, ""],
    ) -> PyTree:
        """A particle of step t >= 1: drawn from M_t(prev, .), or the one at ``kept``."""
        ...

    def log_potential(
        self, t: Int[Array, ""], prev: PyTree | None, particle: PyTree
    ) -> Float[Array, ""]:
        """The log potential log G_t(prev, particle); ``prev`` is None at t = 0."""
        ...

    def trace(self, particle: PyTree) -> PyTree:
        """What of a particle makes the path."""
        ...

    def log_link(self, t: Int[Array, ""], prev: PyTree, kept: PyTree) -> Float[Array, ""]:
        """Log of M_t(prev, kept) G_t(prev, kept), but for a term that is the same for any prev.

        -inf for all where there is no density: then the path keeps its own past.
        """
        ...


class Sweep(NamedTuple):
    """What one application of the kernel leaves; T steps.

    Attributes:
        path: traces of the new path, leaves (T + 1, ...).
        renewed: (T + 1,) whether the path at each step is a particle that was drawn in this sweep.
        ess: (T + 1,) effective sample size of the weights after each step.
        log_evidence: log of the product of the mean weights; an unbiased estimate of the evidence
            only where no path was held.
        failed: whether at some step no weight was positive, or one was NaN or infinite; then the
            path is of no meaning.
    """

    path: PyTree
    renewed: Bool[Array, " times"]
    ess: Float[Array, " times"]
    log_evidence: Float[Array, ""]
    failed: Bool[Array, ""]


class ConditionalFilter(Module):
    """The conditional particle filter of one chain: a pure function for jit, vmap and scan.

    Attributes:
        num_particles: N, at least 2, the one that is held among them.
        ess_threshold: resample when the ESS is below this fraction of N; 1 always does.
        batch_size: at most this many particles are mapped at once; None is all of them.
    """

    num_particles: int = static()
    ess_threshold: float = static(default=0.5)
    batch_size: int | None = static(default=None)

    def __call__(
        self,
        key: PRNGKeyArray,
        model: PathModel,
        path: PyTree,
        is_held: Bool[Array, ""] | bool = True,
    ) -> Sweep:
        """One application of the kernel.

        Args:
            key: random key.
            model: on one particle.
            path: traces, leaves (T + 1, ...).
            is_held: False is an ordinary particle filter, of which a path is drawn; what ``path``
                holds is then of no meaning.
        """
        num_steps = jax.tree.leaves(path)[0].shape[0] - 1
        is_held = jnp.asarray(is_held)
        first = jax.tree.map(lambda a: a[0], path)
        particles = self._map(model.init, *self._slots(key, jnp.int32(0), first, is_held))
        log_potentials = self._map(
            lambda particle: model.log_potential(jnp.int32(0), None, particle), particles
        )
        equal = jnp.full(self.num_particles, -jnp.log(self.num_particles), log_potentials.dtype)
        log_weights, increment = _normalised(equal + log_potentials)

        def step(carry: tuple, now: tuple) -> tuple[tuple, tuple]:
            particles, log_weights, log_evidence = carry
            t, kept = now
            ancestors, log_before = self._descend(
                key, model, t, particles, log_weights, kept, is_held
            )
            prev = jax.tree.map(lambda a: a[ancestors], particles)

            def move(key: Any, kept: Any, is_held: Any, prev: Any) -> tuple[PyTree, Array]:
                particle = model.step(key, t, prev, kept, is_held)
                return particle, model.log_potential(t, prev, particle)

            particles, log_potentials = self._map(move, *self._slots(key, t, kept, is_held), prev)
            log_weights, increment = _normalised(log_before + log_potentials)
            seen = (jax.vmap(model.trace)(particles), ancestors, _ess(log_weights))
            return (particles, log_weights, log_evidence + increment), seen

        later = jax.tree.map(lambda a: a[1:], path)
        carry, (traces, ancestors, ess) = jax.lax.scan(
            step, (particles, log_weights, increment), (jnp.arange(1, num_steps + 1), later)
        )
        _, last, log_evidence = carry
        traces = jax.tree.map(
            lambda a, b: jnp.concatenate([a[None], b]), jax.vmap(model.trace)(particles), traces
        )
        chosen = _choose(_key_of(key, num_steps, _CHOICE), last, is_held)
        slots = _lineage(ancestors, chosen)
        new = jax.tree.map(lambda a: a[jnp.arange(num_steps + 1), slots], traces)
        return Sweep(
            path=new,
            renewed=(slots != 0) | ~is_held,
            ess=jnp.concatenate([_ess(log_weights)[None], ess]),
            log_evidence=log_evidence,
            failed=~jnp.isfinite(log_evidence),
        )

    def _slots(
        self, key: PRNGKeyArray, t: Int[Array, ""], kept: PyTree, is_held: Bool[Array, ""]
    ) -> tuple[Key[Array, " n"], PyTree, Bool[Array, " n"]]:
        """Of each slot: its random key, where the path is, and whether it is held there."""
        n = self.num_particles
        own = jax.random.split(_key_of(key, t, _MOVE), n)
        if jax.default_backend() == "cpu":
            own = keys.unrolled(own)
        kept = jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *jnp.shape(a))), kept)
        return own, kept, (jnp.arange(n) == 0) & is_held

    def _map(self, function: Any, *args: Any) -> Any:
        """A function of one particle, on all."""
        if self.batch_size is None or self.batch_size >= self.num_particles:
            return jax.vmap(function)(*args)
        return jax.lax.map(lambda one: function(*one), args, batch_size=self.batch_size)

    def _descend(
        self,
        key: PRNGKeyArray,
        model: PathModel,
        t: Int[Array, ""],
        particles: PyTree,
        log_weights: Float[Array, " n"],
        kept: PyTree,
        is_held: Bool[Array, ""],
    ) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
        """Ancestors, and the log weights that they go on with."""
        n, threshold = self.num_particles, self.ess_threshold
        links = self._map(partial(model.log_link, t), particles, self._broadcast(kept))
        links = jnp.where(jnp.isnan(links), -jnp.inf, links) + log_weights
        can_link = jnp.any(links > -jnp.inf)
        key_link, key_free = jax.random.split(_key_of(key, t, _LINK))
        linked = jax.random.categorical(key_link, jnp.where(can_link, links, 0.0))
        linked = jnp.where(can_link, linked, 0)
        free = jax.random.categorical(key_free, log_weights)
        first = jnp.where(is_held, linked, free).astype(jnp.int32)
        weights = jnp.nan_to_num(jnp.exp(log_weights), nan=1.0 / n)
        ancestors = conditional_systematic(_key_of(key, t, _RESAMPLE), weights, first)
        resample = (_ess(log_weights) < threshold * n) | (threshold == 1.0)
        equal = jnp.full_like(log_weights, -jnp.log(n))
        return (
            jnp.where(resample, ancestors, jnp.arange(n, dtype=jnp.int32)),
            jnp.where(resample, equal, log_weights),
        )

    def _broadcast(self, kept: PyTree) -> PyTree:
        n = self.num_particles
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *jnp.shape(a))), kept)


_MOVE, _LINK, _RESAMPLE, _CHOICE = range(4)
"""What a random key of a step is for."""


def _key_of(key: PRNGKeyArray, t: Int[Array, ""] | int, purpose: int) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.fold_in(key, t), purpose)


def conditional_systematic(
    rng_key: PRNGKeyArray, weights: Float[Array, " n"], first: Int[Array, ""]
) -> Int[Array, " n"]:
    """Systematic resampling, given which particle slot 0 has descended from.

    The particles are put in random order, and the line [0, N] is cut into their intervals, of
    lengths N W_i. Given that particle k has a copy, the shift U of the comb has a density in
    proportion to the number of its copies; so it is the fractional part of a uniform point of k's
    interval. This point is slot 0's, and the others of the comb are those of the other slots.

    Args:
        rng_key: random key.
        weights: non-negative; they need not be normalised.
        first: ancestor of slot 0; its weight is positive.

    Returns:
        Ancestors, ``first`` in front.
    """
    n = weights.shape[0]
    key_order, key_point = jax.random.split(rng_key)
    order = jax.random.permutation(key_order, n)
    ends = jnp.cumsum(weights[order])
    ends = n * ends / ends[-1]
    place = jnp.argmax(order == first)
    start = jnp.where(place > 0, ends[place - 1], 0.0)
    point = start + jax.random.uniform(key_point, (), ends.dtype) * (ends[place] - start)
    own = jnp.clip(jnp.floor(point), 0, n - 1)
    # The comb's points but the own one, whichever side of rounding that lies on.
    teeth = jnp.arange(n - 1, dtype=ends.dtype)
    teeth = jnp.where(teeth >= own, teeth + 1, teeth) + (point - own)
    chosen = jnp.searchsorted(ends, teeth, side="right")
    # Rounding may put the last tooth beyond the end; only particles of positive weight are taken.
    last = n - 1 - jnp.argmax(weights[order][::-1] > 0.0)
    others = order[jnp.minimum(chosen, last)]
    return jnp.concatenate([first[None], others]).astype(jnp.int32)


def _normalised(log_weights: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Log weights that sum to one, and the log of their sum before; NaN where there is none."""
    total = jax.scipy.special.logsumexp(log_weights)
    total = jnp.where(jnp.isfinite(total), total, jnp.nan)
    return log_weights - total, total


def _ess(log_weights: Float[Array, " n"]) -> Float[Array, ""]:
    return jnp.exp(-jax.scipy.special.logsumexp(2.0 * log_weights))


def _choose(
    key: PRNGKeyArray, log_weights: Float[Array, " n"], is_held: Bool[Array, ""]
) -> Int[Array, ""]:
    """The slot in which the new path ends.

    Where a path was held another slot j is proposed, by the weights, and taken with probability
    min(1, (1 - W_0) / (1 - W_j)): of the kernels that leave the weights as they are this one stays
    less often than a draw by the weights (Liu 1996, Biometrika 83, 681; Chopin and Singh 2015).
    """
    key_draw, key_other, key_take = jax.random.split(key, 3)
    drawn = jax.random.categorical(key_draw, log_weights)
    others = log_weights.at[0].set(-jnp.inf)
    other = jax.random.categorical(key_other, others)
    rest = jax.scipy.special.logsumexp(others)
    left = jnp.log1p(-jnp.minimum(jnp.exp(log_weights[other]), 1.0))
    takes = jnp.log(jax.random.uniform(key_take, (), log_weights.dtype)) < rest - left
    takes = takes & (log_weights[other] > -jnp.inf)
    return jnp.where(is_held, jnp.where(takes, other, 0), drawn).astype(jnp.int32)


def _lineage(ancestors: Int[Array, "steps n"], last: Int[Array, ""]) -> Int[Array, " times"]:
    """The slots, from step 0 on, of the path that ends in slot ``last``."""

    def back(slot: Array, ancestors: Array) -> tuple[Array, Array]:
        before = ancestors[slot]
        return before, before

    last = last.astype(jnp.int32)
    _, slots = jax.lax.scan(back, last, ancestors, reverse=True)
    return jnp.concatenate([slots, last[None]])
