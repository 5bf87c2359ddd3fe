"""Random keys that are cheap to use one a particle.

A filter gives each particle its own key. On the CPU, JAX hashes (Threefry-2x32) in a rolled loop,
so as to compile quickly; with one key a particle that loop carries the whole key schedule through
memory, and a draw costs 40 to 60 ns, more than everything else in a cheap filter. The key type of
this module is the same hash written out: the same bits from the same key, 4 to 7 ns a draw, and
quicker to compile where many draws share a graph.

Reference:
    J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw (2011), Parallel random numbers: as easy
    as 1, 2, 3, SC11.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array, PRNGKeyArray, UInt32

_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_UNSIGNED = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}


def _hash(key: UInt32[Array, " key"], high: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds of the counters (high, low); Salmon et al., section 3.2."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = high + schedule[0], low + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = (y << jnp.uint32(rotation)) | (y >> jnp.uint32(32 - rotation))
            y = x ^ y
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def _hash_range(key: UInt32[Array, " key"], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The hash of the counters 0, 1, 2, ... in an array."""
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"one draw of {size} numbers; draw at most 2**32 - 1 from one key")
    low = jax.lax.iota(jnp.uint32, size).reshape(shape)
    return _hash(key, jnp.zeros_like(low), low)


def _seed(seed: Array) -> UInt32[Array, " key"]:
    low = jax.lax.convert_element_type(seed, jnp.uint32)
    high = jnp.zeros_like(low)
    if seed.dtype.itemsize == 8:
        high = jax.lax.convert_element_type(jax.lax.shift_right_logical(seed, 32), jnp.uint32)
    return jnp.stack([high, low])


def _split(key: UInt32[Array, " key"], shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
    return _materialise(_hash_range(key, shape))


def _fold_in(key: UInt32[Array, " key"], data: Array) -> UInt32[Array, " key"]:
    low = jax.lax.convert_element_type(data, jnp.uint32)
    return _materialise(_hash(key, jnp.zeros_like(low), low))


def _materialise(halves: tuple[Array, Array]) -> UInt32[Array, "*shape 2"]:
    """A new key, fenced off from the hash that will use it.

    XLA would otherwise fuse hash into hash and write the first out once for every use: compilation
    then takes half a minute for a chain of four.
    """
    return jax.lax.optimization_barrier(jnp.stack(halves, axis=-1))


def _random_bits(key: UInt32[Array, " key"], bit_width: int, shape: tuple[int, ...]) -> Array:
    high, low = _hash_range(key, shape)
    dtype = _UNSIGNED[bit_width]
    if bit_width == 64:
        return (high.astype(dtype) << jnp.array(32, dtype)) | low.astype(dtype)
    return (high ^ low).astype(dtype)


_UNROLLED = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,  # pyright: ignore
    name="smcdiff_threefry2x32",
    tag="smcdiff",
)


def unrolled(key: PRNGKeyArray) -> PRNGKeyArray:
    """The same key with the hash written out, so that every draw has the same bits.

    Args:
        key: a typed key, or raw key data of JAX's default type.

    Returns:
        A typed key. Keys of other generators, and the older bit order
        (``jax_threefry_partitionable=False``), are returned as they are.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    default = jax.random.key_impl(key) == "threefry2x32"
    if not default or not jax.config.jax_threefry_partitionable:  # pyright: ignore
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_UNROLLED)
