"""What a model reads besides its arguments, as a part of the key of compiled programs.

``jax.jit`` keeps one program for a model function and the shapes of its arguments. A global, a
closure or an attribute that the function reads is a constant of that program: after the user has
changed it, the old value would still be there, silently. The fingerprint differs when the traced
log likelihood or a constant in it does, so that such a change compiles again. A NumPy array that is
changed in place is not noticed, for JAX itself takes it for the one that it has seen.
"""

from __future__ import annotations

import hashlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff.problem.problem import Problem

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def fingerprint(problem: Problem) -> str:
    """A hash of the traced log likelihood and of the constants in it.

    Args:
        problem: the problem; its arguments are variables of the trace and do not count.

    Returns:
        A hexadecimal string; empty where the model cannot be traced, which the checks report.
    """
    x = jnp.zeros(problem.event_shape)
    try:
        closed = jax.make_jaxpr(lambda problem, x: problem.pointwise_log_likelihood(x))(problem, x)
    except Exception:
        return ""
    # Addresses in the text are those of functions that may be made anew at every trace.
    digest = hashlib.sha256(_ADDRESS.sub("", str(closed.jaxpr)).encode())
    for constant in closed.consts:
        if jnp.issubdtype(jnp.result_type(constant), jax.dtypes.prng_key):
            constant = jax.random.key_data(constant)
        digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()
