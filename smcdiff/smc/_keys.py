"""Random keys: one for each chain, step and particle, so that batching changes no number.

A filter's keys on CPUs. There, JAX hashes (Threefry-2x32) in a rolled loop, so as to compile
quickly; with one key per particle that loop carries the whole key schedule through memory, and a
draw costs 40 to 60 ns, more than everything else in a cheap filter. The key type of this module is
the same hash written out: the same bits from the same key, 4 to 7 ns a draw, and quicker to compile
where many draws share a graph. Other devices have a hash of their own, written out already: there
the standard keys are used.

Reference:
    J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw (2011), Parallel random numbers: as easy
    as 1, 2, 3, SC11.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Int, Key, PRNGKeyArray, UInt32

Keys = Key[Array, "*keys"]
RawKeys = UInt32[Array, "*keys data"]
ChainKeys = PRNGKeyArray | Key[Array, " c"]
"""One key for all chains, or the (C,) keys of the chains."""

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


def unrolled(key: Keys | RawKeys) -> Keys:
    """The same keys with the hash written out, so that every draw has the same bits.

    Args:
        key: typed keys, or raw key data of JAX's default type.

    Returns:
        Typed keys. Keys of other generators, and the older bit order
        (``jax_threefry_partitionable=False``), are returned as they are.
    """
    key = typed(key)
    default = jax.random.key_impl(key) == "threefry2x32"
    if not default or not jax.config.jax_threefry_partitionable:  # pyright: ignore
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_UNROLLED)


def typed(key: Keys | RawKeys) -> Keys:
    """A typed key, also from raw key data of JAX's default type."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key)


def of_chains(key: ChainKeys, num_chains: int | None) -> Key[Array, " c"]:
    """The keys of C chains; of one run without an axis of chains it is the key itself.

    Keys (C,) are the chains' own already, and returned as they are.
    """
    key = typed(key)
    if key.ndim:
        return key
    return key[None] if num_chains is None else jax.random.split(key, num_chains)


def of_step(
    key: Key[Array, ""], t: Int[Array, ""], num_particles: int, platform: str
) -> tuple[Key[Array, ""], Key[Array, " n"]]:
    """The keys of a step of one chain.

    Args:
        key: of the chain.
        t: the step.
        num_particles: N.
        platform: where they will be used, "cpu" for example; see the module.

    Returns:
        The key to resample with, and one to move each particle with.
    """
    key_resample, key_move = jax.random.split(jax.random.fold_in(key, t))
    key_move = jax.random.split(key_move, num_particles)
    return key_resample, unrolled(key_move) if platform == "cpu" else key_move
