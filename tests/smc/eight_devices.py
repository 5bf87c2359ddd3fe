"""The filter on 8 simulated devices against one; `test_devices` runs this in a process of its own.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.smc.eight_devices
"""

import functools
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from smcdiff.smc import (
    Hooks,
    ParticleFilter,
    default_mesh,
    devices,
    particle_filter,
    run_in_segments,
)
from smcdiff.smc import _chains as chains
from smcdiff.smc import _keys as keys
from smcdiff.smc import _rows as rows
from tests.smc.models import LinearGaussian, observations

DEVICES = np.array(jax.devices())
PARTICLES = Mesh(DEVICES, ("particles",))
BOTH = Mesh(DEVICES.reshape(2, 4), ("chains", "particles"))
CHAINS = Mesh(DEVICES, ("chains",))
N = 64


class Numbered(NamedTuple):
    """Particles that know the slot where they began, with log weights from a table (steps, N).

    A slot is told by its key of step 0.
    """

    keys: jax.Array
    table: jax.Array

    def init(self, key):
        slot = jnp.argmax(jnp.all(jax.random.key_data(key)[None] == self.keys, axis=1))
        return {"slot": slot, "row": jnp.full((3, 2), slot), "age": jnp.int32(0)}

    def step(self, key, t, prev):
        return {**prev, "age": prev["age"] + 1}

    def log_potential(self, t, prev, particle):
        return self.table[t, particle["slot"]]


def lopsided(n):
    """Ancestors of n slots, in order: what the exchange of rows must be right for."""
    slots = np.arange(n)
    rng = np.random.default_rng(0)
    geometric = rng.geometric(0.02, n) % n
    return {
        "own": slots,
        "first takes all": np.zeros(n, int),
        "last takes all": np.full(n, n - 1),
        "middle takes all": np.full(n, n // 2 + 1),
        "geometric": np.sort(geometric),
        "geometric from the end": np.sort(n - 1 - geometric),
        "first half": slots // 2,
        "last half": n // 2 + slots // 2,
        "one device's": n // 8 + slots // 8,
        "ends": np.where(slots < n // 3, 0, n - 1),
        "uniform": np.sort(rng.integers(0, n, n)),
        "shifted": np.clip(slots + n // 8, 0, n - 1),
    }


def moved(mesh, particles, ancestors):
    """`move_rows` of the chains that live on a device."""
    on_device = chains.Chains.of(None, (), len(ancestors))
    return rows.move_rows(mesh, on_device, particles, ancestors)


def check_rows(n):
    """`move_rows` alone, against indexing."""
    ancestors = np.stack([*lopsided(n).values()] * 2).astype(np.int32)  # of 24 chains
    shape = ancestors.shape
    particles = {
        "x": np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32),
        "flag": np.random.default_rng(2).random(shape) < 0.5,
    }
    expected = {
        name: np.stack([a[i] for a, i in zip(values, ancestors, strict=True)])
        for name, values in particles.items()
    }
    for mesh in (PARTICLES, BOTH, CHAINS):
        both = devices.per_particle(mesh)
        result = jax.jit(
            devices.spread(
                mesh,
                functools.partial(moved, mesh),
                (both, devices.per_chain(mesh)),
                both,
            )
        )(particles, ancestors)
        for name in particles:
            np.testing.assert_array_equal(result[name], expected[name], err_msg=f"{mesh} {name}")


def close(one, two):
    """Equal but for the rounding of sums; integers and decisions exactly."""

    def compare(a, b):
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)
        else:
            np.testing.assert_array_equal(a, b)

    jax.tree.map(compare, one, two)


def check_runs():
    """Whole runs: same evidence, particles, ancestors and founders as one device."""
    model = LinearGaussian(observations(21))
    for mesh, num_chains, options in (
        (PARTICLES, None, {}),
        (BOTH, 2, {"batch_size": 5}),
        (BOTH, 2, {"ess_threshold": 1.0, "resampling": "multinomial"}),
        (CHAINS, 8, {}),
    ):
        options = {"num_chains": num_chains, "store_ancestors": True, **options}
        one = particle_filter(jax.random.key(0), model, N, 20, **options)
        many = particle_filter(jax.random.key(0), model, N, 20, mesh=mesh, **options)
        close(many, one)
        assert np.asarray(many.resampled).any()
        spec = PartitionSpec(*(name for name in ("chains", "particles") if name in mesh.shape))
        sharding = jax.sharding.NamedSharding(mesh, spec)
        assert many.particles.sharding.is_equivalent_to(sharding, many.particles.ndim)


def check_lopsided_runs():
    """Weights that leave one particle, the last one, or a few of them."""
    key = jax.random.key(1)
    data = jax.random.key_data(keys.of_step(key, jnp.int32(0), N, "cpu")[1])
    heavy, slots = jnp.full((4, N), -jnp.inf), jnp.arange(float(N))
    tables = {
        "one": heavy.at[:, 5].set(0.0),
        "last": heavy.at[:, -1].set(0.0),
        "geometric": jnp.broadcast_to(-0.5 * slots, (4, N)),
        "geometric from the end": jnp.broadcast_to(0.5 * slots, (4, N)),
    }
    for name, table in tables.items():
        model = Numbered(data, table)
        one = particle_filter(key, model, N, 3, store_ancestors=True)
        many = particle_filter(key, model, N, 3, mesh=PARTICLES, store_ancestors=True)
        close(many, one)
        survivors = set(np.asarray(many.particles["row"]).ravel().tolist())
        assert {"one": {5}, "last": {N - 1}}.get(name, survivors) == survivors
        assert 0 < many.num_founders[-1] < N / 4 and (many.particles["age"] == 3).all()


def check_unsorted():
    """A resampler of the user's own, whose indices come in any order."""

    def shuffled(key, weights, num_samples):
        indices = jax.random.categorical(key, jnp.log(weights), shape=(num_samples,))
        return jax.random.permutation(key, indices)

    model = LinearGaussian(observations(11))
    options = {"resampling": shuffled, "store_ancestors": True}
    one = particle_filter(jax.random.key(0), model, N, 10, **options)
    many = particle_filter(jax.random.key(0), model, N, 10, mesh=PARTICLES, **options)
    close(many, one)


def check_steps_and_transformations():
    """One step at a time, hooks, models that differ between chains, and vmap over keys."""
    y = jnp.stack([observations(7, 1), observations(7, 2)])
    model = LinearGaussian(y)
    one, many = (ParticleFilter(N, 2, mesh=mesh) for mesh in (None, BOTH))
    expected = jax.jit(lambda k, m: one.run(k, m, 6, chain_axes=0))(jax.random.key(0), model)
    state = jax.jit(lambda k, m: many.init(k, m, chain_axes=0))(jax.random.key(0), model)
    step = jax.jit(lambda s, m: many.step(s, m, chain_axes=0))
    for _ in range(6):
        state, info = step(state, model)
    close(state.particles, expected.particles)
    close(info.ess, expected.ess[:, -1])

    seen = []
    hooks = Hooks(collect=lambda state, info: seen.append(state.ess) or info.ess)
    held = run_in_segments(many, jax.random.key(0), model, 6, chain_axes=0, hooks=hooks)
    close(held._replace(collected=None), expected)
    close(np.moveaxis(held.collected, 0, 1), np.asarray(expected.ess))

    single = ParticleFilter(N, mesh=PARTICLES)
    pair = jax.random.split(jax.random.key(0))
    mapped = jax.jit(jax.vmap(lambda k, y: single.run(k, LinearGaussian(y), 6)))(pair, y)
    for i in range(2):
        close(
            jax.tree.map(lambda a, i=i: a[i], mapped),
            ParticleFilter(N).run(pair[i], LinearGaussian(y[i]), 6),
        )


def check_default_mesh():
    """All local devices that divide the particles, chains first."""
    assert dict(default_mesh(64).shape) == {"chains": 1, "particles": 8}
    assert dict(default_mesh(64, 2).shape) == {"chains": 2, "particles": 4}
    assert dict(default_mesh(6, 12).shape) == {"chains": 4, "particles": 2}
    assert default_mesh(7) is None and default_mesh(7, 3) is None


def check_docs():
    """The Python of docs/devices.md."""
    text = (Path(__file__).parents[2] / "docs" / "devices.md").read_text()
    names = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)), names)
    assert len(names["result"].particles.sharding.device_set) == 8


if __name__ == "__main__":
    assert len(DEVICES) == 8
    check_default_mesh()
    for n in (8, 72, 1000):
        check_rows(n)
    check_runs()
    check_lopsided_runs()
    check_unsorted()
    check_steps_and_transformations()
    check_docs()
    print("all equal")
