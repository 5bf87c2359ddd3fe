"""What proposals for linear-Gaussian observations share.

The whitened residual r(x) = Gamma^{-1/2} (y - A x) is all that is known of the observation; here
are the quantities derived from it. In whitened coordinates the noise is N(0, I), and a masked entry
is a row of zeros. Of an exact observation the residual is y - A x and the noise is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from smcdiff.base.gaussian import LOG_2PI
from smcdiff.base.module import Module
from smcdiff.errors import InputError
from smcdiff.problem import Problem
from smcdiff.proposals.base import ReverseModel

_NUM_PROBES = 64
_LEAST_SIGNAL = 2.0
"""Of a direction that is held; of 1, 2 and 3 the best for `FPS` on a blur of digits."""


def require_linear(problem: Problem, name: str) -> None:
    """Raises ``InputError`` unless the observation is linear-Gaussian."""
    if not problem.linear:
        raise InputError(
            f"{name} needs an observation that is linear in site '{problem.site}' with Gaussian"
            " noise, and none was found; pass linear=True to SMC if it is, or use"
            " proposals.Twisted() or proposals.Bootstrap()"
        )


def unit(vector: Float[Array, " n"]) -> Float[Array, " n"]:
    """The vector at length one; zero stays zero."""
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length > 0.0, length, 1.0)


def next_direction(rows: Float[Array, "n d"], image: Float[Array, " d"]) -> Float[Array, " d"]:
    """What the orthonormal rows (or zeros) do not have of a vector, at length one.

    Zero where the space is exhausted: what is left of the vector then is rounding.
    """
    new = image
    for _ in range(2):  # once is not orthogonal enough in float32
        new = new - rows.T @ (rows @ new)
    exhausted = jnp.linalg.norm(new) < 1e-4 * jnp.linalg.norm(image)
    return jnp.where(exhausted, 0.0, unit(new))


def held(model: ReverseModel, gains: Float[Array, " r"]) -> Bool[Array, " r"]:
    """Which directions of x are held to what was observed of them, less a draw of the noise.

    Where the signal is weak such a draw lies far outside the prior; those enter by a twist instead,
    `log_weak`. An exact observation has no noise to draw, and with weights off nothing else would
    know of the rest: then all that are seen are held, as published.

    Args:
        model: the reverse model.
        gains: (r,) what a unit of x in each direction is to y, in noise standard deviations.
    """
    if model.problem.noise_free or not model.weighted:
        return gains > 0.0
    signal = gains * jnp.sqrt(model.problem.prior.average_spread(model.level(0)))
    return signal >= _LEAST_SIGNAL


def log_weak(
    misfit: Float[Array, " r"], gains: Float[Array, " r"], weak: Bool[Array, " r"], spread
) -> Float[Array, ""]:
    """Log density of weakly observed directions over that of their noise at 0.

    Args:
        misfit: (r,) whitened, at a guess of x_0.
        gains: as for `held`.
        weak: (r,) which count.
        spread: variance of x_0 about the guess, in each direction.
    """
    variances = 1.0 + spread * gains**2
    return -0.5 * jnp.sum(jnp.where(weak, misfit**2 / variances + jnp.log(variances), 0.0))


def weak_guide(
    model: ReverseModel, x: Float[Array, " d"], step, log_twist: Callable[[Array, Array], Array]
) -> tuple[Float[Array, ""], Float[Array, " d"] | None]:
    """The guide of a proposal that holds what it can: the twist of the rest, the denoised mean.

    Args:
        model: the reverse model.
        x: (d,) the particle.
        step: its level.
        log_twist: log density of what is weak, of a guess of x_0 and the variance about it.
    """
    level = model.level(step)
    if not model.weighted or model.problem.noise_free:
        return jnp.zeros(()), model.denoise_for_kernel(x, level)
    denoised = model.denoise(x, level)
    return log_twist(denoised, model.problem.prior.spread(level)), denoised


def row_norms(model: ReverseModel) -> Float[Array, " m"]:
    """Squared norms of the rows of the whitened operator.

    Estimated with Rademacher probes (mean of (A z)_i^2), which is exact for rows with one non-zero
    entry and needs no dense matrix.
    """
    shape = _NUM_PROBES, model.size
    probes = jax.random.rademacher(jax.random.key(0), shape, jnp.result_type(float))
    return jnp.mean(jax.vmap(model.problem.operator())(probes) ** 2, axis=0)


class Selection(Module):
    """An observation of single coordinates: y_i = gain_i (x[index_i] + scale_i * noise).

    Attributes:
        held: (d,) which coordinates are observed well enough to be held at what was observed.
        weak: (d,) which are observed, but not so.
        values: (d,) y over the gain, for both; 0 elsewhere.
        scale: (d,) their noise standard deviations, in the units of x, 0 where the observation is
            exact; 1 elsewhere.
        log_constant: log of p(y given x) over the density of N(values, scale^2) at the held
            coordinates of x, at weak ones that fit; of an exact observation, of the change of
            variables from x to y.
    """

    held: Bool[Array, " d"]
    weak: Bool[Array, " d"]
    values: Float[Array, " d"]
    scale: Float[Array, " d"]
    log_constant: Float[Array, ""]

    def log_weak(self, x: Float[Array, " d"], spread) -> Float[Array, ""]:
        """Log density of what is weakly observed, for x_0 in N(x, spread I), and the constant."""
        gains = 1.0 / jnp.where(self.weak, self.scale, 1.0)
        misfit = gains * (self.values - x)
        return self.log_constant + log_weak(misfit, gains, self.weak, spread)


def _probe(problem: Problem) -> tuple[Array, Array, Array]:
    """Candidate indices, inverse noise scales, and r(0)."""
    operator, size = problem.operator(), math.prod(problem.event_shape)
    inverse_scale = operator(jnp.ones((size,)))  # the gain, of an exact observation
    weighted = operator(jnp.arange(size, dtype=inverse_scale.dtype))
    safe = jnp.where(inverse_scale == 0.0, 1.0, inverse_scale)
    index = jnp.clip(jnp.round(weighted / safe), 0, size - 1).astype(jnp.int32)
    return index, inverse_scale, problem.residual(jnp.zeros(problem.event_shape))


def selection(model: ReverseModel) -> Selection:
    """Reads which coordinates are observed, their values and noise, from the residual."""
    size, exact = model.size, model.problem.noise_free
    index, inverse_scale, at_zero = _probe(model.problem)
    seen = inverse_scale > 0.0
    unit = jnp.where(seen, 1.0 / jnp.where(seen, inverse_scale, 1.0), 1.0)
    # Masked entries are written to a slot behind the last coordinate and cut off.
    slot = jnp.where(seen, index, size)

    def scatter(fill, values):
        return jnp.full((size + 1,), fill).at[slot].set(values)[:size]

    values = scatter(0.0, at_zero * unit)
    # At the values the law of x is at its mode, and whatever sees no x counts as it is.
    law = jnp.log(unit) + (0.0 if exact else 0.5 * LOG_2PI)
    settled = held(model, inverse_scale)
    log_constant = model.log_likelihood(values) + jnp.sum(jnp.where(settled, law, 0.0))
    scale = scatter(1.0, jnp.zeros_like(unit) if exact else unit)
    chosen = scatter(False, settled), scatter(False, seen & ~settled)
    return Selection(*chosen, values, scale, log_constant)


def require_selection(problem: Problem, name: str) -> None:
    """Raises ``InputError`` unless every observation is one coordinate plus Gaussian noise."""
    require_linear(problem, name)
    index, inverse_scale, at_zero = _probe(problem)
    probe = jax.random.normal(jax.random.key(1), (math.prod(problem.event_shape),))
    error = jnp.abs(inverse_scale * probe[index] - problem.operator()(probe))
    gain = jnp.abs(inverse_scale)
    is_selection = bool(jnp.all(error <= 1e-3 * gain + 1e-6 * jnp.max(gain)))
    used: Int[np.ndarray, " n"] = np.asarray(index)[np.asarray(inverse_scale) > 0]
    if not is_selection or bool(jnp.any(inverse_scale < 0)) or len(np.unique(used)) != len(used):
        others = "FPS()" if problem.noise_free else "Twisted() or proposals.MomentMatched()"
        raise InputError(
            f"{name} needs an observation of single entries of site '{problem.site}' (a mask, each"
            f" entry at most once); for other linear operators use proposals.{others}"
        )
    unseen = jnp.where(inverse_scale > 0, 0.0, jnp.abs(at_zero))
    tolerance = 1e-3 * (1.0 + jnp.max(jnp.abs(at_zero)))
    if problem.noise_free and bool(jnp.max(unseen, initial=0.0) > tolerance):
        raise InputError(
            f"{name}: no '{problem.site}' satisfies the exact observation, which has entries that"
            " are no entry of it; check the mask and the observed values"
        )
