"""What a particle filter carries from step to step, records of the steps, and returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from smcdiff.smc._chains import add_axis, drop_axis
from smcdiff.smc.genealogy import evidence_variance


class FilterState(NamedTuple):
    """A particle filter after one of its steps; C chains, N particles per chain.

    The axis of chains is absent where the filter's ``num_chains`` is None. The next step depends on
    nothing else but the model, so that a state can be kept and gone on from.

    Attributes:
        step: the step that the state has taken, 0 after ``init``.
        key: (C,) random keys of the run; each step folds its number into them.
        particles: leaves of shape (C, N, ...).
        log_weights: (C, N), normalised; NaN in a chain that failed.
        founders: (C, N) index of each particle's ancestor at step 0.
        num_founders: (C,) number of distinct founders.
        ess: (C,) effective sample size.
        log_evidence: (C,) the sum of log mean weights, without its compensation.
        compensation: (C,) what rounding took from that sum: the log evidence is the sum of both.
        drawn_together: (C,) how far resampling by itself has brought founders together; see
            `smcdiff.smc.genealogy`.
        failed_step: (C,) the first step after which no positive weight was left or a weight was NaN
            or infinite; -1 where there is none.
    """

    step: Int[Array, ""]
    key: Key[Array, "*c"]
    particles: PyTree
    log_weights: Float[Array, "*c n"]
    founders: Int[Array, "*c n"]
    num_founders: Int[Array, "*c"]
    ess: Float[Array, "*c"]
    log_evidence: Float[Array, "*c"]
    compensation: Float[Array, "*c"]
    drawn_together: Float[Array, "*c"]
    failed_step: Int[Array, "*c"]


class StepInfo(NamedTuple):
    """What happened at one step; C chains (no such axis where ``num_chains`` is None).

    Attributes:
        t: the step, 0 to num_steps.
        ess: (C,) effective sample size of the weights after the step.
        log_evidence_increment: (C,) log of the mean weight, log L_t - log L_{t-1}.
        resampled: (C,) whether the particles were resampled at the start of the step.
        ancestors: (C, N) index of each particle's parent among the particles of step t - 1.
        num_founders: (C,) how many particles of step 0 have descendants among the present ones.
    """

    t: Int[Array, ""]
    ess: Float[Array, "*c"]
    log_evidence_increment: Float[Array, "*c"]
    resampled: Bool[Array, "*c"]
    ancestors: Int[Array, "*c n"] | None
    num_founders: Int[Array, "*c"]


class FilterResult(NamedTuple):
    """Weighted particles of the last step, the evidence and the record of the run.

    C is the number of chains (the axis is absent where ``num_chains`` is None), N of particles, T
    of steps.

    Attributes:
        particles: leaves of shape (C, N, ...).
        log_weights: (C, N), normalised; NaN in a chain that failed.
        log_evidence: (C,); -inf or NaN in a chain that failed, NaN where ``weighted`` is False.
        log_evidence_se: (C,) standard error of each chain's log evidence, told from its founders
            (`evidence_variance`); NaN where they cannot tell.
        founders: (C, N) index of each particle's ancestor at step 0.
        ess: (C, T + 1).
        log_evidence_increments: (C, T + 1).
        resampled: (C, T + 1), at the start of each step.
        num_founders: (C, T + 1) number of distinct founders.
        ancestors: (C, T + 1, N), or None where they were not stored.
        collected: what ``collect`` returned, stacked to (T + 1, ...), or None.
        failed_step: (C,) the first step after which no positive weight was left or a weight was
            NaN or infinite; -1 where there is none.
    """

    particles: PyTree
    log_weights: Float[Array, "*c n"]
    log_evidence: Float[Array, "*c"]
    log_evidence_se: Float[Array, "*c"]
    founders: Int[Array, "*c n"]
    ess: Float[Array, "*c t"]
    log_evidence_increments: Float[Array, "*c t"]
    resampled: Bool[Array, "*c t"]
    num_founders: Int[Array, "*c t"]
    ancestors: Int[Array, "*c t n"] | None
    collected: PyTree
    failed_step: Int[Array, "*c"]

    @classmethod
    def of(
        cls, state: FilterState, record: Record, weighted: bool, store_ancestors: bool
    ) -> FilterResult:
        """Of a run whose state and record are these, without what was collected."""
        log_evidence, history = state.log_evidence + state.compensation, by_chain(record)
        variance = evidence_variance(state.log_weights, state.founders, state.drawn_together)
        if not weighted:
            log_evidence = variance = jnp.full_like(log_evidence, jnp.nan)
        return cls(
            particles=state.particles,
            log_weights=state.log_weights,
            log_evidence=log_evidence,
            log_evidence_se=jnp.sqrt(variance),
            founders=state.founders,
            ess=history.ess,
            log_evidence_increments=history.log_evidence_increment,
            resampled=history.resampled,
            num_founders=history.num_founders,
            ancestors=history.ancestors if store_ancestors else None,
            collected=None,
            failed_step=state.failed_step,
        )


def with_axis(held: Any) -> Any:
    """A state, an info, a record, arrays, or several of them, of one chain: with its axis."""
    return _apply(add_axis, held)


def without_axis(held: Any) -> Any:
    """A state, an info, a record, arrays, or several of them: without the axis of one chain."""
    return _apply(drop_axis, held)


def _apply(change: Callable, held: Any) -> Any:
    if isinstance(held, Record):  # steps come first
        return change(held, 1)
    if isinstance(held, FilterState | StepInfo):  # all chains are at the same step
        return type(held)(held[0], *change(tuple(held[1:])))
    if type(held) is tuple:
        return tuple(_apply(change, part) for part in held)
    return change(held)


class Record(NamedTuple):
    """The infos of all steps in arrays (T + 1, C, ...), written as the steps are taken.

    ``ancestors`` is None, or has T + 1 rows, or one row for the last step alone.
    """

    ess: Float[Array, " steps *c"]
    log_evidence_increment: Float[Array, " steps *c"]
    resampled: Bool[Array, " steps *c"]
    ancestors: Int[Array, "rows *c n"] | None
    num_founders: Int[Array, " steps *c"]

    @classmethod
    def empty(cls, info: StepInfo, num_steps: int, ancestor_rows: int) -> Record:
        """Zeros for the infos of steps 0 to ``num_steps``, in the shapes of one."""

        def rows(number: int, a: Array) -> Array:
            return jnp.zeros((number, *a.shape), a.dtype)

        fields = {name: getattr(info, name) for name in cls._fields}
        ancestors = fields.pop("ancestors")
        return cls(
            ancestors=rows(ancestor_rows, ancestors) if ancestor_rows else None,
            **{name: rows(num_steps + 1, a) for name, a in fields.items()},
        )

    def write(self, info: StepInfo) -> Record:
        """The record with one more step."""

        def put(rows: Array | None, name: str) -> Array | None:
            if rows is None:
                return None
            return jax.lax.dynamic_update_index_in_dim(
                rows, getattr(info, name), info.t % rows.shape[0], 0
            )

        return Record(*(put(rows, name) for name, rows in self._asdict().items()))  # pyright: ignore

    def read(self, t: int) -> StepInfo:
        """The info of step ``t``, the last one written."""
        fields = {
            name: None if rows is None else rows[t % len(rows)]
            for name, rows in self._asdict().items()
        }
        return StepInfo(t=jnp.int32(t), **fields)  # pyright: ignore[reportArgumentType]


@jax.jit  # one compilation, where eager costs one an array
def by_chain(record: Record) -> Record:
    """The record with the axis of chains before that of steps."""
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), record)
