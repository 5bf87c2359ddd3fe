"""What XLA needs on CPUs, told once; other modules refer to it.

**Batched LAPACK calls.** On the CPU, XLA hands each matrix of a batched Cholesky or eigenvalue
decomposition to its thread pool and waits. Two such calls that do not depend on each other may run
at the same time, each in a pool thread and waiting for one that the other holds: the program then
stands still for ever, or for seconds at each step. So two factorisations of one step are one call
(the matrices concatenated), and where that cannot be, the second is made to depend on the first by
`after`. An ``optimization_barrier`` does not serve: it is gone before the program is scheduled. A
user's likelihood may hold such calls of its own, triangular solves for example, which nobody can
put in order: `spare_threads` makes the pool larger than the few that may wait at once.

**Triangular solves.** Under ``vmap`` one costs a loop per right-hand side; a small inverse per
particle, and matrix products after it, is up to a hundred times cheaper
(`smcdiff.base._gaussian.inverse_lower`). Not worse elsewhere.

**Fast Fourier transforms** wait for the same pool: `smcdiff.operators` transforms by matrix
products.

**Convolutions** inside loops: see `smcdiff.networks._convolution`.

**Random numbers**, one key per particle: see `smcdiff.smc._keys`.
"""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_FEWEST_THREADS = 4
"""Of XLA's pool. With 2, a program of two batched solves stood still; with 3 or 4 it did not."""


def spare_threads() -> None:
    """Asks XLA for a pool of four threads where there are fewer cores; see the module.

    XLA reads the environment variable ``NPROC`` when it starts, with the first array. What the user
    has set stays.
    """
    own = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(own(0)) if own else os.cpu_count() or 1
    if cores < _FEWEST_THREADS:
        os.environ.setdefault("NPROC", str(_FEWEST_THREADS))


def is_default() -> bool:
    """Whether programs run on a CPU unless something else is said."""
    return jax.default_backend() == "cpu"


def after(value: Float[Array, "*shape"], earlier: Float[Array, ""]) -> Float[Array, "*shape"]:
    """The value, which a CPU computes from only when ``earlier`` is known.

    A NaN of ``earlier`` is passed on, so that the dependence is a true one.
    """
    if not is_default():
        return value
    return jnp.where(jnp.isnan(earlier), jnp.nan, value)


spare_threads()  # before XLA starts: every import of the package comes by here
