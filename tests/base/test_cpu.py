"""What is arranged for CPUs."""

import os
import subprocess
import sys

import pytest

from smcdiff.base import _cpu

TWO_SOLVES = """
import smcdiff, jax, jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

@jax.jit
def program(factors, a, b):
    solve = jax.vmap(lambda factor, a: solve_triangular(factor, a, lower=True))

    def body(_, pair):
        a, b = pair
        return tuple(0.9 * solve(factors, c) + 0.1 * jnp.roll(c, 1, 0) for c in (a, b))

    return jax.lax.fori_loop(0, 300, body, (a, b))

keys = jax.random.split(jax.random.key(0), 3)
factors = jnp.eye(2) + 0.1 * jnp.tril(jax.random.normal(keys[0], (24_000, 2, 2)))
starts = (jax.random.normal(key, (24_000, 2, 6)) for key in keys[1:])
jax.block_until_ready(program(factors, *starts))
"""


@pytest.mark.parametrize(
    ("cores", "given", "wanted"), [(2, None, "4"), (2, "2", "2"), (8, None, None)]
)
def test_few_cores_get_spare_threads(monkeypatch, cores, given, wanted):
    monkeypatch.delenv("NPROC", raising=False)
    if given is not None:
        monkeypatch.setenv("NPROC", given)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    _cpu.spare_threads()
    assert os.environ.get("NPROC") == wanted


@pytest.mark.slow
def test_two_batched_solves_end():
    """In a program that nobody has put in order; it ended in 4 seconds, or never."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NPROC", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, "-c", TWO_SOLVES],
        env={**environment, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
