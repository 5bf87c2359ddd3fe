"""The filter's keys draw the very bits of JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff.smc._keys import unrolled


def data(key):
    return np.asarray(jax.random.key_data(key))


def test_same_bits_as_the_default_keys():
    key = jax.random.key(123)
    fast = unrolled(key)
    assert fast.dtype != key.dtype
    np.testing.assert_array_equal(
        data(jax.random.split(fast, (3, 2))), data(jax.random.split(key, (3, 2)))
    )
    np.testing.assert_array_equal(
        data(jax.random.fold_in(fast, 7)), data(jax.random.fold_in(key, 7))
    )
    for dtype in (jnp.uint8, jnp.uint16, jnp.uint32):
        draw = jax.random.bits(fast, (5, 3), dtype)
        np.testing.assert_array_equal(draw, jax.random.bits(key, (5, 3), dtype))
    np.testing.assert_array_equal(jax.random.normal(fast), jax.random.normal(key))


def test_one_key_a_particle():
    keys = jax.random.split(jax.random.key(0), 100)
    draw = jax.vmap(lambda k: jax.random.normal(jax.random.split(k)[1], (2,)))
    np.testing.assert_array_equal(draw(unrolled(keys)), draw(keys))


def test_raw_and_foreign_keys():
    raw = jax.random.PRNGKey(5)
    np.testing.assert_array_equal(data(unrolled(raw)), np.asarray(raw))
    foreign = jax.random.key(0, impl="rbg")
    assert unrolled(foreign) is foreign
    assert unrolled(unrolled(raw)).dtype == unrolled(raw).dtype
