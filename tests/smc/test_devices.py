"""Chains and particles over devices: 8 simulated ones, and two processes on one machine.

Devices are made when JAX starts, so that both run in processes of their own.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from smcdiff.errors import InputError
from smcdiff.smc import ParticleFilter, particle_filter
from smcdiff.smc import _rows as rows
from tests.smc.models import LinearGaussian, observations

ROOT = Path(__file__).parents[2]


def start(module, *arguments, flags=""):
    """A process that runs a module of the tests."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}".strip(),
    }
    command = [sys.executable, "-m", f"tests.smc.{module}", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    """Waits, and shows what it printed where it failed."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_eight_devices():
    flag = "--xla_force_host_platform_device_count=8"
    assert "all equal" in finish(start("eight_devices", flags=flag))


@pytest.mark.slow
def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [start("two_processes", address, i, tmp_path) for i in range(2)]
    for process in processes:
        finish(process)
    saved = [dict(np.load(tmp_path / f"{i}.npz")) for i in range(2)]
    assert saved[0].keys() == saved[1].keys()
    for name, value in saved[0].items():
        np.testing.assert_array_equal(value, saved[1][name])
    model = LinearGaussian(observations(21))
    for name, num_chains in (("particles", None), ("chains", 2), ("resumed", None)):
        one = particle_filter(
            jax.random.key(0), model, 64, 20, num_chains=num_chains, store_ancestors=True
        )
        np.testing.assert_array_equal(saved[0][f"{name}.ancestors"], one.ancestors)
        for field in ("log_evidence", "particles", "log_weights", "ess"):
            value = saved[0][f"{name}.{field}"]
            np.testing.assert_allclose(value, getattr(one, field), rtol=1e-5, atol=2e-5)


def mesh_of(shape, *names):
    """A mesh that has this many devices; all of them are the one that there is."""
    device = np.empty(shape, object)
    device[...] = jax.devices()[0]
    return Mesh(device, names)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (mesh_of((3,), "particles"), 'num_particles is 8 and the axis "particles".*has 3'),
        (mesh_of((2, 4), "chains", "particles"), "num_chains is 3.*a multiple of 2"),
        (mesh_of((2,), "batch"), r"axes \('batch',\); name them \"chains\" and \"particles\""),
    ],
)
def test_meshes_that_do_not_fit(mesh, message):
    with pytest.raises(InputError, match=message):
        ParticleFilter(8, 3, mesh=mesh)


def test_one_chain_needs_no_axis_of_chains():
    with pytest.raises(InputError, match="num_chains is 1 and the axis"):
        ParticleFilter(8, mesh=mesh_of((2,), "chains"))


def test_a_mesh_of_one_device_changes_nothing():
    model = LinearGaussian(observations(6))
    mesh = Mesh(np.array(jax.devices()[:1]), ("particles",))
    one, two = (particle_filter(jax.random.key(0), model, 16, 5, mesh=m) for m in (None, mesh))
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize(("num_particles", "devices"), [(64, 8), (1024, 8), (10**6, 8), (8, 8)])
def test_a_round_moves_some_of_a_device_s_own_rows(num_particles, devices):
    assert 1 <= rows.capacity(num_particles, devices) <= num_particles // devices
