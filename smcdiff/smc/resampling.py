"""Resampling schemes: from weights to ancestor indices.

Every scheme is a function ``(rng_key, weights, num_samples) -> int32 indices``, BlackJAX's
protocol, so that schemes of either library fit either filter. For normalised weights W and M
samples, all are unbiased: particle i is copied M W_i times in expectation.

The line [0, M] is cut into consecutive intervals of lengths M W_i, and M points on it choose
the particles whose intervals they hit:

    systematic:   points j + U,    one U;             |copies - M W_i| < 1;
    stratified:   points j + U_j,  M independent U_j; |copies - M W_i| < 2;
    multinomial:  M independent uniform points;
    residual:     floor(M W_i) copies for certain, multinomial for the remainders.

How the points are counted. In float32 a cumulative sum of 10^6 weights is wrong by many copies,
ends below or above 1, and a binary search in it picks particles of weight zero. Here

* positions on the line are kept as a whole number and a fraction in [0, 1): blocks of values are
  summed in floating point, blocks among themselves in integers plus fractions, so that a position
  is good to about 2e-7 M and M W_i of the usual particle to far better;
* the first point of each interval follows from its left end in closed form (one comparison of
  fractions), without a search: the particle's index is scattered to that slot, and a cumulative
  maximum fills the slots after it;
* only particles of positive weight are scattered, so no other can be chosen, and the last of them
  takes what rounding leaves over.

The returned indices are sorted. All of it is integer-valued: no gradient flows through.

References:
    G. Kitagawa (1996), J. Comput. Graph. Stat. 5, 1 (stratified, systematic).
    J. Carpenter, P. Clifford and P. Fearnhead (1999), IEE Proc. F 146, 2 (systematic).
    J. S. Liu and R. Chen (1998), J. Am. Stat. Assoc. 93, 1032 (residual).
    R. Douc, O. Cappe and E. Moulines (2005), Comparison of resampling schemes, ISPA.
    L. Devroye (1986), Non-Uniform Random Variate Generation, Springer, V.3.1 (sorted uniforms from
    exponential spacings).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from smcdiff.errors import InputError, did_you_mean, first_line

Resampler = Callable[[PRNGKeyArray, Float[Array, " n"], int], Int[Array, " m"]]

# Long enough that block sums are few, short enough that summing a block by a product with a
# triangle of ones, which is several times faster than XLA's cumulative sum, wastes little.
_BLOCK = 32


@partial(jax.jit, static_argnames="num_samples")
def systematic(
    rng_key: PRNGKeyArray, weights: Float[Array, " n"], num_samples: int
) -> Int[Array, " m"]:
    """Systematic resampling: one uniform number shifts a regular comb.

    Args:
        rng_key: random key.
        weights: non-negative weights; they need not be normalised.
        num_samples: M, the number of indices.

    Returns:
        Sorted int32 indices of the ancestors.
    """
    weights = jax.lax.stop_gradient(weights)
    whole, fraction = _left_ends(weights, num_samples)
    offset = jax.random.uniform(rng_key, (), weights.dtype)
    return _fill(weights > 0, whole + (offset < fraction), num_samples)


@partial(jax.jit, static_argnames="num_samples")
def stratified(
    rng_key: PRNGKeyArray, weights: Float[Array, " n"], num_samples: int
) -> Int[Array, " m"]:
    """Stratified resampling: one uniform number in each of M equal strata.

    Args:
        rng_key: random key.
        weights: non-negative weights; they need not be normalised.
        num_samples: M, the number of indices.

    Returns:
        Sorted int32 indices of the ancestors.
    """
    weights = jax.lax.stop_gradient(weights)
    whole, fraction = _left_ends(weights, num_samples)
    offsets = jax.random.uniform(rng_key, (num_samples,), weights.dtype)
    offset = offsets[jnp.clip(whole, 0, num_samples - 1)]
    return _fill(weights > 0, whole + (offset < fraction), num_samples)


@partial(jax.jit, static_argnames="num_samples")
def multinomial(
    rng_key: PRNGKeyArray, weights: Float[Array, " n"], num_samples: int
) -> Int[Array, " m"]:
    """Multinomial resampling: independent draws, returned sorted.

    Args:
        rng_key: random key.
        weights: non-negative weights; they need not be normalised.
        num_samples: M, the number of indices.

    Returns:
        Sorted int32 indices of the ancestors.
    """
    weights = jax.lax.stop_gradient(weights)
    ends = _left_ends(weights, num_samples)
    starts = _count_uniform_points(rng_key, ends, num_samples, num_samples)
    return _fill(weights > 0, starts, num_samples)


@partial(jax.jit, static_argnames="num_samples")
def residual(
    rng_key: PRNGKeyArray, weights: Float[Array, " n"], num_samples: int
) -> Int[Array, " m"]:
    """Residual resampling: the whole part of M W_i for certain, the remainders multinomially.

    Args:
        rng_key: random key.
        weights: non-negative weights; they need not be normalised.
        num_samples: M, the number of indices.

    Returns:
        Sorted int32 indices of the ancestors.
    """
    weights = jax.lax.stop_gradient(weights)
    expected = weights * (num_samples / total(weights))
    # A few units in the last place up, or equal weights, M W_i = 1 - 6e-8, would all be random.
    slack = 4 * jnp.finfo(weights.dtype).eps
    copies = jnp.floor(expected * (1 + slack))
    remainders = jnp.maximum(expected - copies, 0.0)
    copies = copies.astype(jnp.int32)
    num_random = jnp.maximum(num_samples - jnp.sum(copies), 0)
    ends = _left_ends(remainders, num_random)
    starts = _count_uniform_points(rng_key, ends, num_random, num_samples)
    starts = jnp.where(num_random > 0, starts, 0) + jnp.cumsum(copies) - copies
    return _fill(weights > 0, starts, num_samples)


_NAMED = {
    "systematic": systematic,
    "stratified": stratified,
    "multinomial": multinomial,
    "residual": residual,
}


def get(resampler: str | Resampler) -> Resampler:
    """The resampling function of a name; a function is returned as it is.

    Args:
        resampler: "systematic", "stratified", "multinomial", "residual", or a function
            ``(rng_key, weights, num_samples) -> indices``.

    Returns:
        The function.

    Raises:
        InputError: an unknown name.
    """
    if callable(resampler):
        _check(resampler)
        return resampler
    if resampler not in _NAMED:
        raise InputError(
            f"resampling is {resampler!r}; {did_you_mean(str(resampler), _NAMED)}, or pass a"
            " function (rng_key, weights, num_samples) -> indices"
        )
    return _NAMED[resampler]


def _check(resampler: Resampler) -> None:
    """Raises ``InputError`` where a user's function does not return as many indices as asked."""
    weights = jax.ShapeDtypeStruct((8,), jnp.result_type(float))
    try:
        indices = jax.eval_shape(lambda key, w: resampler(key, w, 5), jax.random.key(0), weights)
    except TypeError as error:
        raise InputError(
            f"resampling: the function fails on (rng_key, weights, num_samples) under jax.jit"
            f" ({first_line(error)})"
        ) from error
    shape, dtype = getattr(indices, "shape", None), getattr(indices, "dtype", float)
    if shape != (5,) or not jnp.issubdtype(dtype, jnp.integer):
        raise InputError(
            f"resampling: of 8 weights and num_samples = 5 the function makes {indices}; it must"
            " return num_samples indices, integers"
        )


def in_order(resampler: Resampler, ancestors: Int[Array, "*c n"]) -> Int[Array, "*c n"]:
    """Ancestors in order: those of this module's schemes are, those of others are sorted.

    The order means nothing to the filter's law, since each slot draws by its own key; it tells
    where the survivors are.
    """
    if resampler in _NAMED.values():
        return ancestors
    is_sorted = jnp.all(ancestors[..., 1:] >= ancestors[..., :-1])
    return jax.lax.cond(is_sorted, lambda a: a, lambda a: jnp.sort(a, axis=-1), ancestors)


def _blocks(values: Float[Array, " n"]) -> Float[Array, "b k"]:
    """Values in rows of at most `_BLOCK`, padded with zeros."""
    size = min(_BLOCK, max(values.shape[0], 1))
    return jnp.pad(values, (0, -values.shape[0] % size)).reshape(-1, size)


def total(values: Float[Array, " n"]) -> Float[Array, ""]:
    """Sum in two levels, accurate in float32 for millions of values of one sign."""
    return jnp.sum(jnp.sum(_blocks(values), axis=1))


def _left_ends(
    lengths: Float[Array, " n"], end: int | Int[Array, ""]
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Left ends of consecutive intervals stretched to cover [0, end]: whole part and fraction."""
    blocks = _blocks(lengths)
    triangle = jnp.triu(jnp.ones((blocks.shape[1], blocks.shape[1]), blocks.dtype))
    within = jnp.matmul(blocks, triangle, precision=jax.lax.Precision.HIGHEST)
    sums = within[:, -1]
    scale = end / jnp.sum(sums)
    sums = sums * scale
    whole = jnp.floor(sums)
    fraction = sums - whole
    whole = whole.astype(jnp.int32)
    block_whole = jnp.cumsum(whole) - whole
    block_fraction = jnp.cumsum(fraction) - fraction
    left = block_fraction[:, None] + (within - blocks) * scale
    whole = jnp.floor(left)
    fraction = left - whole
    whole = block_whole[:, None] + whole.astype(jnp.int32)
    n = lengths.shape[0]
    return whole.reshape(-1)[:n], fraction.reshape(-1)[:n]


def _count_uniform_points(
    key: PRNGKeyArray,
    ends: tuple[Int[Array, " n"], Float[Array, " n"]],
    num_points: int | Int[Array, ""],
    max_points: int,
) -> Int[Array, " n"]:
    """How many of ``num_points`` sorted uniform points on [0, num_points] lie left of each end.

    Points fall into unit bins, so that a count is that of the bins before plus a comparison with
    each point of one bin: about log M of them at most, whatever the weights are.
    """
    whole, fraction = ends
    dtype = fraction.dtype
    # log1p(-u) with u in [0, 1) is finite; log(u) would be infinite once in 2^23 draws.
    spacings = -jnp.log1p(-jax.random.uniform(key, (max_points + 1,), dtype))
    spacings = jnp.where(jnp.arange(max_points + 1) <= num_points, spacings, 0.0)
    # A point is the right end of its spacing, the left end of the next one.
    point_bin, point = (a[1:] for a in _left_ends(spacings, num_points))
    used = jnp.arange(max_points) < num_points
    bins = jnp.where(used, jnp.clip(point_bin, 0, max_points - 1), max_points)
    num_in_bin = jnp.zeros(max_points + 1, jnp.int32).at[bins].add(1)[:max_points]
    num_before = jnp.cumsum(num_in_bin) - num_in_bin
    bin_of_end = jnp.clip(whole, 0, max_points - 1)
    first, size = num_before[bin_of_end], num_in_bin[bin_of_end]

    def compare(k, count):
        left = point[jnp.minimum(first + k, max_points - 1)] < fraction
        return count + ((k < size) & left)

    return jax.lax.fori_loop(0, jnp.max(num_in_bin), compare, first)


def _fill(positive: Array, starts: Int[Array, " n"], num_samples: int) -> Int[Array, " m"]:
    """Index of the particle that owns each slot, given the first slot of each particle.

    Of particles with the same first slot the last one owns it: the others have no copies.
    """
    index = jnp.arange(starts.shape[0], dtype=jnp.int32)
    slot = jnp.where(positive, jnp.maximum(starts, 0), num_samples)
    marks = jnp.zeros(num_samples, jnp.int32).at[slot].max(index, mode="drop")
    return _cumulative_max(marks)


def _cumulative_max(values: Int[Array, " n"]) -> Int[Array, " n"]:
    """Cumulative maximum of non-negative integers.

    Level upon level of blocks of 8 that compare all pairs, with what came before the block as a
    ninth value: about four times as fast as XLA's own on CPUs.
    """
    n, size = values.shape[0], 8
    if n <= size:
        return jax.lax.cummax(values)
    blocks = jnp.pad(values, (0, -n % size)).reshape(-1, size)
    before = jnp.pad(_cumulative_max(jnp.max(blocks[:-1], axis=1)), (1, 0))
    rows = jnp.concatenate([before[:, None], blocks], axis=1)
    upto = jnp.arange(size + 1)[:, None] <= jnp.arange(1, size + 1)[None, :]
    return jnp.max(jnp.where(upto[None], rows[:, :, None], 0), axis=1).reshape(-1)[:n]
