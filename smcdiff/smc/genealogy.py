"""Founders: which particles of step 0 the present ones descend from, and what that tells.

Resampling makes particles share ancestors. Few distinct founders at the end mean that the path
estimates rest on few draws. The founders also give the variance of the evidence from ONE run: for
multinomial resampling at r of the steps and final weights W,

    Var(Z_hat) / Z^2  ~  1 - (N / (N - 1))^(r + 1) (1 - sum_e (sum_{i: founder(i) = e} W_i)^2),

Lee and Whiteley's unbiased form (their eq. 8 for the constant function, weights of the last step
included) of the estimator of Chan and Lai; with r = 0 it is the sample variance of importance
sampling. Other resampling schemes add less noise than multinomial resampling, so that there it is
an upper indication and no consistent estimate.

References:
    H. P. Chan and T. L. Lai (2013), A general theory of particle filters in hidden Markov models
    and some applications, Ann. Stat. 41, 2877.
    A. Lee and N. Whiteley (2018), Variance estimation in the particle filter, Biometrika 105, 609.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def count_founders(founders: Int[Array, " n"], is_sorted: bool = False) -> Int[Array, ""]:
    """Number of distinct founders.

    Args:
        founders: index of each particle's founder, 0 to n - 1.
        is_sorted: they are known to be in order, which makes counting cheaper.

    Returns:
        The number of distinct values.
    """
    if is_sorted:
        return 1 + jnp.sum(founders[1:] != founders[:-1], dtype=jnp.int32)
    seen = jnp.zeros(founders.shape[0], bool).at[founders].set(True)
    return jnp.sum(seen, dtype=jnp.int32)


def evidence_variance(
    log_weights: Float[Array, "*c n"],
    founders: Int[Array, "*c n"],
    resampled: Bool[Array, "*c t"],
) -> Float[Array, "*c"]:
    """Relative variance of the evidence estimate, Var(Z_hat) / Z^2, from the founders of a run.

    For small values it is also the variance of log Z_hat. Meant for multinomial resampling; see the
    module. It is itself noisy, and may come out negative; with one founder left it says only that
    the variance cannot be told.

    Args:
        log_weights: normalised log weights of the last step.
        founders: index of each particle's founder.
        resampled: which steps resampled.

    Returns:
        One value a chain.

    Reference:
        Lee and Whiteley (2018), section 3; Chan and Lai (2013), theorem 2.
    """
    n = founders.shape[-1]
    if founders.ndim > 1:
        return jax.vmap(evidence_variance)(log_weights, founders, resampled)
    weights = jnp.exp(log_weights)
    by_founder = jnp.zeros(n, weights.dtype).at[founders].add(weights)
    levels = 1 + jnp.sum(resampled)
    # One founder at least is always left: the first factor stays finite even for n = 1.
    inflation = jnp.exp(levels * -jnp.log1p(-1.0 / max(n, 2)))
    return 1.0 - inflation * (1.0 - jnp.sum(by_founder**2))
