"""`Module`: the one base class of parts that are pytrees, and foreign callables made into such.

Proposals, twists, kernels, schedules, grids, operators and denoisers are frozen dataclasses whose
fields are children of a pytree, but those declared with `static`, which are structure. Subclassing
does all of it::

    class Blur(LinearOperator):
        kernel: Float[Array, "a b"]
        event: tuple[int, ...] = static()

Unflattening does not run ``__init__`` or ``__post_init__``, which may check and convert what the
user gave: under a transformation of JAX the fields may hold anything.

Why the classes register as custom nodes. ``jax.tree_util.register_dataclass`` is shorter, but the
tree definitions that it makes compare equal for any two classes with as many children and the same
static values (jaxlib 0.10.2 to 0.12.0: the registered class is compared for custom nodes only),
though their hashes differ. The caches of JAX look at a few bits of the hash and then compare, so
that now and then `MCGDiff()` was handed the program compiled for `PiGDM()`: wrong numbers and no
error, in 25 of 1,500 pairs of classes. Custom nodes are told apart. (Priors are NumPyro
distributions, which register themselves as custom nodes too.)
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, dataclass_transform

import jax
import numpy as np


def static(**options: Any) -> Any:
    """A field that is structure and not a child: it must be hashable, and is part of cache keys.

    Args:
        **options: of ``dataclasses.field``, ``default`` for example.
    """
    return dataclasses.field(metadata={"static": True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
class Module:
    """A frozen dataclass that is a pytree; see the module.

    A subclass may write its own ``__init__``, which hands its fields to `set_fields`.
    """

    _init_by_hand: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls._init_by_hand = "__init__" in cls.__dict__ or cls._init_by_hand
        dataclasses.dataclass(frozen=True, init=not cls._init_by_hand)(cls)
        _register(cls)


def set_fields(module: Module, **values: Any) -> None:
    """Sets fields of a frozen module, for its own ``__init__`` or ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(module, name, value)


def field_names(cls: type) -> tuple[list[str], list[str]]:
    """Names of the fields that are children, and of those that are static."""
    fields = dataclasses.fields(cls)
    fixed = [field.name for field in fields if field.metadata.get("static", False)]
    return [field.name for field in fields if field.name not in fixed], fixed


def _register(cls: type) -> None:
    children, fixed = field_names(cls)
    hidden = [n for n in (*children, *fixed) if isinstance(getattr(cls, n, None), property)]
    if hidden:
        raise TypeError(f"{cls.__name__}: fields {hidden} are properties of a base; rename them")
    keys = [jax.tree_util.GetAttrKey(name) for name in children]

    def flatten(value):
        leaves = tuple(getattr(value, name) for name in children)
        return leaves, tuple(getattr(value, name) for name in fixed)

    def flatten_with_keys(value):
        leaves, structure = flatten(value)
        return tuple(zip(keys, leaves, strict=True)), structure

    def unflatten(structure, leaves):
        value = object.__new__(cls)
        set_fields(value, **dict(zip(children, leaves, strict=True)))
        set_fields(value, **dict(zip(fixed, structure, strict=True)))
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


class Portable(Module):
    """A callable of somebody else's, as a pytree whose leaves are its arrays.

    Whatever else is a leaf of it, an activation function or a flag, is structure; so are the
    classes of its nodes, by which programs are told apart where JAX does not (see the module).

    Attributes:
        arrays: the leaves that are arrays.
        rest: everything else.
    """

    arrays: tuple[Any, ...]
    rest: Skeleton = static()

    def __call__(self, *args: Any) -> Any:
        """Calls it."""
        return self.rest.rebuild(self.arrays)(*args)


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A pytree without its arrays.

    Attributes:
        structure: the tree definition.
        classes: of its nodes, nested as they are.
        leaves: its leaves; None in the place of arrays.
        is_array: which leaves are arrays.
    """

    structure: Any
    classes: tuple
    leaves: tuple
    is_array: tuple[bool, ...]

    def rebuild(self, arrays: tuple) -> Any:
        """The pytree with arrays put in their places."""
        remaining = iter(arrays)
        pairs = zip(self.leaves, self.is_array, strict=True)
        leaves = [next(remaining) if is_array else leaf for leaf, is_array in pairs]
        return jax.tree.unflatten(self.structure, leaves)


def portable(function: Any) -> Any:
    """A callable as a pytree of arrays, so that it can be an argument of compiled programs.

    Args:
        function: a `Module` is returned as it is; a plain function becomes a pytree without leaves;
            of any other object the arrays become leaves.
    """
    if isinstance(function, Module | jax.tree_util.Partial):
        return function
    leaves, structure = jax.tree.flatten(function)
    if len(leaves) == 1 and leaves[0] is function:
        return jax.tree_util.Partial(function)
    is_array = tuple(isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves)
    arrays = tuple(leaf for leaf, flag in zip(leaves, is_array, strict=True) if flag)
    others = tuple(None if flag else leaf for leaf, flag in zip(leaves, is_array, strict=True))
    return Portable(arrays, Skeleton(structure, _classes(structure), others, is_array))


def _classes(structure: Any) -> tuple:
    """The classes of the nodes of a tree definition."""
    node = structure.node_data()
    children = (_classes(child) for child in structure.children())
    return () if node is None else (node[0], *children)
