"""Where the weights of a run vary: by the twist, and by the proposal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.schedules import Grid
from smcdiff.errors import InputError, SamplingError
from smcdiff.proposals import Proposal
from smcdiff.sampler._faults import likelihood_fault
from smcdiff.sampler._sampler import Sampler
from smcdiff.sampler._settings import Settings
from smcdiff.sampler._steered_diffusion import SteeredDiffusion
from smcdiff.smc import ParticleFilter, feynman_kac


class WeightVariance(NamedTuple):
    """What `weight_variance` returns, for each step of the sampler.

    Attributes:
        log_snr: (num_steps,) of the levels t that the steps leave, increasing.
        twist: (num_steps,) variance in nat^2 over the particles x_t of log E_q[w given x_t]: what
            the twist's average misses. It is an estimate without bias, so that where there is none
            it may be slightly below zero. More steps do not lessen its sum; a better twist does.
        proposal: (num_steps,) mean over the particles of the variance of log w given x_t: what the
            proposal misses. Its sum falls as steps are shorter. Infinite, as ``twist``, where some
            weight is zero.
    """

    log_snr: Float[np.ndarray, " steps"]
    twist: Float[np.ndarray, " steps"]
    proposal: Float[np.ndarray, " steps"]


def weight_variance(
    key: PRNGKeyArray,
    model: Callable,
    proposal: Proposal | None,
    *args: Any,
    num_particles: int = 64,
    num_draws: int = 32,
    num_steps: int = 25,
    kernel: Kernel | None = None,
    grid: Grid | None = None,
    **kwargs: Any,
) -> WeightVariance:
    """The variance of the log weights of each step, split into twist and proposal.

    The weight of a step from t to s is w = p(x_s given x_t) psi_s(x_s) / (q(x_s given x_t)
    psi_t(x_t)), whose mean over q is E_p[psi_s given x_t] / psi_t(x_t): 1 for all x_t if the twist
    is p(y given x_t), whatever the proposal. So

        log w = log E_q[w given x_t] + rest,

    the first being the twist's and the rest the proposal's. One filter of ``num_particles`` is run
    on the observation, and at each level ``num_draws`` more steps are drawn from each of its
    weighted particles. The logarithm of an average of draws is noisy: the variance that is the
    noise's, by the jackknife, is taken off. Where ``proposal`` is above log(num_draws) or so, the
    average is the largest of the draws, and ``twist`` only an order of magnitude.

    Args:
        key: random key.
        model: a NumPyro model, as of `smcdiff.SMC`.
        proposal: the sampler; None chooses as `smcdiff.SMC` does.
        *args: arguments of the model.
        num_particles: N.
        num_draws: M; the cost is that of M + 1 filters.
        num_steps: reverse steps.
        kernel: None takes what `smcdiff.SMC` does.
        grid: None takes what `smcdiff.SMC` does: the proposal's own.
        **kwargs: keyword arguments of the model, the observations among them.

    Raises:
        InputError: fewer than two particles or draws, unknown parameters, or what `smcdiff.SMC`
            refuses.
        SamplingError: the filter was left without a finite weight.
    """
    for name, value in (("num_particles", num_particles), ("num_draws", num_draws)):
        if value < 2:
            raise InputError(f"weight_variance: {name} is {value}; it must be at least 2")
    settings = Settings(
        proposal, num_particles, num_steps, num_chains=1, resampling="systematic",
        ess_threshold=0.5, weighted=True, batch_size=None, kernel=kernel, grid=grid, linear=None,
        store_ancestors=False, mesh=None, move=None,
    )  # fmt: skip
    sampler = Sampler(model, settings, progress=False)
    problem = sampler.read(args, kwargs)
    problem.require_known("weight_variance")
    chosen, _ = sampler.choose(problem)
    reverse = sampler.assemble(problem, chosen)
    key_prepare, key_run = jax.random.split(key)
    steered = SteeredDiffusion(chosen, reverse, chosen.prepare(key_prepare, reverse))
    twist, rest, failed = _run(key_run, steered, num_particles, num_draws)
    if int(failed) >= 0:
        remedy = likelihood_fault(problem) or "try more particles or another proposal"
        raise SamplingError(
            f"weight_variance: no finite weight was left after step {int(failed)} of the filter;"
            f" {remedy}"
        )
    log_snr = np.asarray(reverse.levels.log_snr[:-1])
    return WeightVariance(log_snr, np.asarray(twist), np.asarray(rest))


@partial(jax.jit, static_argnames=("num_particles", "num_draws"))
def _run(
    key: PRNGKeyArray, steered: SteeredDiffusion, num_particles: int, num_draws: int
) -> tuple[Float[Array, " steps"], Float[Array, " steps"], Int[Array, ""]]:
    """Both parts at each step, and the step at which the filter failed or -1."""
    particles = ParticleFilter(num_particles)
    state, _ = particles.step(particles.init(key, steered), steered)  # x_T

    def body(state, key):
        def again(key):
            keys = jax.random.split(key, num_particles)
            move = jax.vmap(lambda k, x: feynman_kac.move(steered, k, state.step + 1, x)[1])
            return move(keys, state.particles)

        log_weights = jax.lax.map(again, jax.random.split(key, num_draws))
        parts = _split(log_weights.T, jnp.exp(state.log_weights))
        return particles.step(state, steered)[0], parts

    keys: Key[Array, " steps"] = jax.random.split(
        jax.random.fold_in(key, 1), steered.model.num_steps
    )
    state, (twist, rest) = jax.lax.scan(body, state, keys)
    return twist, rest, state.failed_step


def _split(
    log_w: Float[Array, "n m"], weights: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The variances between weighted particles and within them, of M draws of each."""
    count = log_w.shape[1]
    rest = weights @ jnp.var(log_w, axis=1, ddof=1)
    shifted = jnp.exp(log_w - jnp.max(log_w, axis=1, keepdims=True))
    # Not as differences from the sum, of which the largest may be all but rounding.
    others = shifted @ (1.0 - jnp.eye(count, dtype=log_w.dtype))
    without = jnp.log(jnp.maximum(others, jnp.finfo(log_w.dtype).tiny))
    spread = without - jnp.mean(without, axis=1, keepdims=True)
    noise = (count - 1) / count * jnp.sum(spread**2, axis=1)
    average = logsumexp(log_w, axis=1)
    between = weights @ (average - weights @ average) ** 2 - (weights * (1.0 - weights)) @ noise
    between = between / (1.0 - weights @ weights)
    is_finite = jnp.all(jnp.isfinite(log_w))
    return jnp.where(is_finite, between, jnp.inf), jnp.where(is_finite, rest, jnp.inf)
