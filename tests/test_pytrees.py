"""Pytrees: classes that JAX's caches can tell apart."""

import dataclasses
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import smcdiff
from smcdiff import kernels, proposals, schedules
from smcdiff.pytrees import classes, pytree


@pytree
@dataclasses.dataclass(frozen=True)
class Line:
    slope: jax.Array
    degree: int = dataclasses.field(default=1, metadata={"static": True})
    intercept: float = 0.0


@pytree
@dataclasses.dataclass(frozen=True)
class Other(Line):
    """The same fields."""


def test_children_structure_and_names():
    line = Line(jnp.arange(3.0), 2, 4.0)
    leaves, structure = jax.tree.flatten(line)
    assert len(leaves) == 2 and jax.tree.unflatten(structure, leaves) == line
    assert jax.tree.structure(Line(jnp.zeros(3), 3)) != structure
    doubled = jax.tree.map(lambda leaf: 2.0 * leaf, line)
    assert doubled.degree == 2 and doubled.intercept == 8.0
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(line)]
    assert paths == [".slope", ".intercept"]


def test_two_classes_with_equal_fields_differ():
    one = jnp.ones(())
    assert jax.tree.structure(Line(one)) != jax.tree.structure(Other(one))


def test_what_a_compiled_run_depends_on_differs():
    """A run is cached by the structures of its proposal, kernel, grid and schedule."""
    values = [sampler() for sampler in proposals.SAMPLERS]
    values += [kernels.DDIM(), kernels.AnalyticDPM(), kernels.Exact(), kernels.EulerMaruyama()]
    values += [schedules.UniformLogSNR(), schedules.UniformTime(), schedules.Karras()]
    values += [schedules.OrnsteinUhlenbeck(), schedules.Cosine(), schedules.VarianceExploding()]
    for first, second in itertools.combinations(values, 2):
        assert jax.tree.structure(first) != jax.tree.structure(second), (first, second)


@pytest.mark.parametrize("folder", [Path(smcdiff.__file__).parent, Path(__file__).parent])
def test_no_class_is_registered_with_jax_register_dataclass(folder):
    marker = "@jax.tree_util." + "register_dataclass"
    assert not [str(file) for file in folder.rglob("*.py") if marker in file.read_text()]


def test_classes_tell_apart_what_jax_does_not():
    def make(name):
        return jax.tree_util.register_dataclass(dataclasses.make_dataclass(name, ["x"]))

    first, second = make("First"), make("Second")
    tree = {"a": (first(1.0), 2.0)}
    assert classes(tree) == classes(jax.tree.map(jnp.negative, tree))
    assert classes(tree) != classes({"a": (second(1.0), 2.0)})
