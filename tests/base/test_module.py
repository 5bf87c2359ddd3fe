"""Modules: frozen dataclasses as pytrees whose compiled programs are told apart."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import proposals
from smcdiff.base.module import Module, Portable, portable, set_fields, static
from smcdiff.operators import LinearOperator


class Scaled(Module):
    factor: jax.Array
    power: int = static(default=1)

    def __post_init__(self):
        if not isinstance(self.factor, jax.Array):
            set_fields(self, factor=jnp.asarray(self.factor))

    def __call__(self, x):
        return self.factor * x**self.power


class ByHand(Module):
    total: jax.Array
    name: str = static()

    def __init__(self, first, second, name="sum"):
        set_fields(self, total=first + second, name=name)


class Heir(ByHand):
    """It inherits the ``__init__`` of its parent and adds no field."""


def test_fields_are_children_or_structure():
    leaves, structure = jax.tree.flatten(Scaled(2.0, power=3))
    assert leaves == [2.0]
    assert jax.tree.unflatten(structure, [jnp.float32(1.0)])(2.0) == 8.0
    assert structure != jax.tree.structure(Scaled(2.0, power=2))
    ((path, _),) = jax.tree.leaves_with_path(Scaled(2.0))
    assert jax.tree_util.keystr(path) == ".factor"


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scaled(1.0).factor = 2.0


def test_unflattening_runs_no_init():
    """Fields may hold anything under a transformation, which ``__post_init__`` would refuse."""
    assert jax.tree.map(lambda leaf: "anything", Scaled(1.0)).factor == "anything"
    assert jax.tree.map(lambda leaf: None, Heir(1.0, 2.0)).name == "sum"


def test_an_init_of_ones_own():
    assert Heir(1.0, 2.0, "mine").total == 3.0
    assert dataclasses.replace(Scaled(1.0), power=2).power == 2


def test_programs_of_empty_classes_are_told_apart():
    """With ``register_dataclass`` 25 of 1,500 such pairs got each other's program (JAX 0.10)."""

    def make(index):
        return type(f"Empty{index}", (Module,), {"__annotations__": {}})

    made = [make(index)() for index in range(300)]
    structures = {jax.tree.structure(value) for value in made}
    assert len(structures) == 300

    @jax.jit
    def name_of(value):
        return jnp.float32(int(type(value).__name__.removeprefix("Empty")))

    assert [int(name_of(value)) for value in made] == list(range(300))
    first, second = (jax.tree.structure(p()) for p in (proposals.MCGDiff, proposals.PiGDM))
    assert first != second


class Pair(NamedTuple):
    weight: jax.Array
    activation: object

    def __call__(self, x):
        return self.activation(self.weight * x)


def _registered(name):
    cls = dataclasses.make_dataclass(name, ["weight"], frozen=True)
    return jax.tree_util.register_dataclass(cls)


def test_portable_keeps_what_is_one():
    module, partial = Scaled(2.0), jax.tree_util.Partial(jnp.sin)
    assert portable(module) is module and portable(partial) is partial
    assert jax.tree.leaves(portable(jnp.sin)) == []


def test_portable_takes_leaves_that_are_no_arrays():
    """An equinox network has its activation function among its leaves."""
    network = portable(Pair(jnp.float32(2.0), jax.nn.relu))
    assert isinstance(network, Portable) and jax.tree.leaves(network) == [2.0]
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(network, -1.0), 0.0)
    other = portable(Pair(jnp.float32(2.0), jnp.abs))
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(other, -1.0), 2.0)


def test_portable_tells_foreign_classes_apart():
    """JAX compares their tree definitions equal where they were registered as dataclasses."""
    first, second = (_registered(name)(jnp.float32(1.0)) for name in ("First", "Second"))
    for cls, sign in ((type(first), 1.0), (type(second), -1.0)):
        cls.__call__ = lambda self, x, sign=sign: sign * self.weight * x
    a, b = portable(first), portable(second)
    assert jax.tree.structure(a) != jax.tree.structure(b)
    assert jax.tree.structure(a) == jax.tree.structure(portable(type(first)(jnp.float32(3.0))))


def test_a_field_that_a_base_has_as_a_property_is_refused():
    """Else it could never be set."""
    with pytest.raises(TypeError, match=r"Mine: fields \['shape'\] are properties of a base"):

        class Mine(LinearOperator):
            shape: tuple[int, ...] = static()
