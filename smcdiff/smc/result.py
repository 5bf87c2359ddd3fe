"""What a particle filter returns, and what ``collect`` sees of one of its steps."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int, PyTree


class StepInfo(NamedTuple):
    """What happened at one step of one chain.

    Attributes:
        t: the step, 0 to num_steps.
        ess: effective sample size of the weights after the step.
        log_evidence_increment: log of the mean weight, log L_t - log L_{t-1}.
        resampled: whether the particles were resampled at the start of the step.
        ancestors: index of each particle's parent among the particles of step t - 1.
        num_founders: how many particles of step 0 have descendants among the present ones.
    """

    t: Int[Array, ""]
    ess: Float[Array, ""]
    log_evidence_increment: Float[Array, ""]
    resampled: Bool[Array, ""]
    ancestors: Int[Array, " n"]
    num_founders: Int[Array, ""]


class FilterResult(NamedTuple):
    """Weighted particles of the last step, the evidence and the record of the run.

    C is the number of chains (the axis is absent where ``num_chains`` is None), N of particles, T
    of steps.

    Attributes:
        particles: leaves of shape (C, N, ...).
        log_weights: (C, N), normalised; NaN in a chain that failed.
        log_evidence: (C,); -inf or NaN in a chain that failed, NaN where ``weighted`` is False.
        founders: (C, N) index of each particle's ancestor at step 0.
        ess: (C, T + 1).
        log_evidence_increments: (C, T + 1).
        resampled: (C, T + 1), at the start of each step.
        num_founders: (C, T + 1) number of distinct founders.
        ancestors: (C, T + 1, N), or None where they were not stored.
        collected: what ``collect`` returned, stacked to (C, T + 1, ...), or None.
        failed_step: (C,) the first step after which no positive weight was left or a weight was
            NaN or infinite; -1 where there is none.
    """

    particles: PyTree
    log_weights: Float[Array, "*c n"]
    log_evidence: Float[Array, "*c"]
    founders: Int[Array, "*c n"]
    ess: Float[Array, "*c t"]
    log_evidence_increments: Float[Array, "*c t"]
    resampled: Bool[Array, "*c t"]
    num_founders: Int[Array, "*c t"]
    ancestors: Int[Array, "*c t n"] | None
    collected: PyTree
    failed_step: Int[Array, "*c"]
