"""Chains and particles over the devices of a mesh.

A `jax.sharding.Mesh` with an axis "chains", an axis "particles", or both, holds an equal part of
each. The steps of a filter run inside one ``jax.shard_map``: every device maps the model over the
particles that live on it. The log weights, N numbers per chain, are gathered on all devices that
share a chain, so that each of them normalises and resamples by the same numbers as one device
would. The rows of particles that resampling moves are the only other traffic; see
`smcdiff.smc._rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from smcdiff.errors import InputError

CHAINS, PARTICLES = "chains", "particles"


def check(mesh: Any, num_particles: int, num_chains: int | None) -> Mesh | None:
    """A mesh that the filter can use.

    Args:
        mesh: what the user gave; None is one device.
        num_particles: N, per chain.
        num_chains: None is one.

    Returns:
        The mesh with axes of the type "auto", whatever they were.

    Raises:
        InputError: no mesh, other axes than "chains" and "particles", or sizes that do not divide.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise InputError(
            f"particle_filter: mesh is {mesh!r}; pass a jax.sharding.Mesh, for example"
            ' jax.make_mesh((4,), ("particles",))'
        )
    unknown = [name for name in mesh.axis_names if name not in (CHAINS, PARTICLES)]
    if unknown:
        raise InputError(
            f"particle_filter: the mesh has axes {mesh.axis_names}; name them"
            f' "{CHAINS}" and "{PARTICLES}", or one of them'
        )
    counts = {PARTICLES: ("num_particles", num_particles), CHAINS: ("num_chains", num_chains or 1)}
    for axis, (name, count) in counts.items():
        size = num_devices(mesh, axis)
        if count % size:
            raise InputError(
                f'particle_filter: {name} is {count} and the axis "{axis}" of the mesh has {size}'
                f" devices; make {name} a multiple of {size}, or the axis a divisor of {count}"
            )
    return Mesh(mesh.devices, mesh.axis_names)


def default_mesh(num_particles: int, num_chains: int | None = None) -> Mesh | None:
    """As many of the local devices as divide chains and particles; None where that is one.

    Chains come first, since between them nothing travels.

    Args:
        num_particles: N, per chain.
        num_chains: None is one.
    """
    devices = jax.local_devices()
    chains = math.gcd(num_chains or 1, len(devices))
    particles = math.gcd(num_particles, len(devices) // chains)
    if chains * particles == 1:
        return None
    grid = np.array(devices[: chains * particles]).reshape(chains, particles)
    return Mesh(grid, (CHAINS, PARTICLES))


def num_devices(mesh: Mesh | None, axis: str) -> int:
    """Size of an axis; 1 where the mesh has no such axis."""
    return 1 if mesh is None else mesh.shape.get(axis, 1)


def platform(mesh: Mesh | None) -> str:
    """Where the filter will run: "cpu", "gpu" or "tpu"."""
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def per_chain(mesh: Mesh | None) -> P:
    """How an array (C, ...) lies on the mesh."""
    return P(CHAINS if mesh is not None and CHAINS in mesh.shape else None)


def per_particle(mesh: Mesh | None) -> P:
    """How an array (C, N, ...) lies on the mesh."""
    particles = PARTICLES if mesh is not None and PARTICLES in mesh.shape else None
    return P(*per_chain(mesh), particles)


def spread(mesh: Mesh | None, function: Callable, in_specs: PyTree, out_specs: PyTree) -> Callable:
    """``function`` of the parts that live on one device, on all devices of the mesh.

    What the function closes over is the same on all devices.
    """
    if mesh is None:
        return function
    # Unchecked: that gathered weights are the same on all devices is beyond JAX's types.
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def gather(mesh: Mesh | None, values: Shaped[Array, "*c part"]) -> Shaped[Array, "*c n"]:
    """The numbers of all particles, from each device's own; inside `spread`."""
    if num_devices(mesh, PARTICLES) == 1:
        return values
    return jax.lax.all_gather(values, PARTICLES, axis=values.ndim - 1, tiled=True)


def own(mesh: Mesh | None, values: Shaped[Array, "*c n"]) -> Shaped[Array, "*c part"]:
    """The part of this device, of what all devices hold for all particles; inside `spread`."""
    size = num_devices(mesh, PARTICLES)
    if size == 1:
        return values
    part, axis = values.shape[-1] // size, values.ndim - 1
    return jax.lax.dynamic_slice_in_dim(values, jax.lax.axis_index(PARTICLES) * part, part, axis)


def mean(
    mesh: Mesh | None, weights: Float[Array, "*c n"], values: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The weighted mean over all particles, for each of this device's own; inside `spread`.

    Args:
        mesh: of the filter.
        weights: of all particles.
        values: (C, part, ...), of this device's.
    """
    axis = weights.ndim - 1
    own = jnp.moveaxis(values, axis, -1)
    every = gather(mesh, own)
    shape = (*weights.shape[:-1], *[1] * (every.ndim - axis - 1), weights.shape[-1])
    total = jnp.sum(weights.reshape(shape) * every, axis=-1, keepdims=True)
    return jnp.moveaxis(jnp.broadcast_to(total, own.shape), -1, axis)


def any_chain(mesh: Mesh | None, flags: Bool[Array, "*c"]) -> Bool[Array, ""]:
    """Whether a flag is up in any chain of any device; inside `spread`.

    All devices get the same answer, so that they may branch on it into code that communicates.
    """
    some = jnp.any(flags)
    return some if num_devices(mesh, CHAINS) == 1 else jax.lax.psum(some, CHAINS) > 0


def readable(tree: PyTree) -> PyTree:
    """The tree with whole arrays in every process; what this process holds whole is left alone."""

    def whole(leaf: Any) -> Any:
        if getattr(leaf, "is_fully_addressable", True):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = whole(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)
