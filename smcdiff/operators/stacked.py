"""Several operators observed together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from smcdiff.base.module import set_fields
from smcdiff.errors import InputError
from smcdiff.operators._gather import Gather
from smcdiff.operators.algebra import SVD, LinearOperator, Reshape, Scaled
from smcdiff.operators.mask import Mask
from smcdiff.operators.structure import Structure, as_floats, as_indices, at_once, is_known


class Stacked(LinearOperator):
    """The observations of several operators on the same event, flat, one after the other.

    Has structure where it is one operator only, and where all of them select entries, scaled or
    not: masks of different entries, and of the same entries too.

    Args:
        operators: one or more, of the same ``in_shape``.

    Attributes:
        operators: as given.
        joint: all of them as one operator of known structure, or None.

    Raises:
        InputError: no operators, or operators on different events.
    """

    operators: tuple[LinearOperator, ...]
    joint: LinearOperator | None

    def __init__(self, operators: Sequence[LinearOperator]):
        operators = tuple(operators)
        shapes = [operator.in_shape for operator in operators]
        if not operators or any(shape != shapes[0] for shape in shapes):
            raise InputError(
                f"Stacked: operators on events of shapes {shapes}; give at least one, all on the"
                " same event"
            )
        set_fields(self, operators=operators, joint=_joint(operators))

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of an event."""
        return self.operators[0].in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(entries of all observations,)."""
        return (sum(math.prod(operator.out_shape) for operator in self.operators),)

    @property
    def structure(self) -> Structure:
        """That of the joint operator."""
        return Structure() if self.joint is None else self.joint.structure

    @property
    def structured(self) -> bool:
        """Whether there is a joint operator, and it is."""
        return self.joint is not None and self.joint.structured

    def apply(self, x: Num[Array, "*event"]) -> Num[Array, " m"]:
        """All observations."""
        return jnp.concatenate([operator.apply(x).ravel() for operator in self.operators])

    def svd(self) -> SVD:
        """That of the joint operator; dense where there is none.

        Raises:
            InputError: there is none, and the matrix is too large.
        """
        return super().svd() if self.joint is None else self.joint.svd()

    def scaled_svd(self, factor: Float[Array, "..."]) -> SVD:
        """That of the joint operator; dense where there is none.

        Raises:
            InputError: as `svd`.
        """
        joint = self.joint
        return super().scaled_svd(factor) if joint is None else joint.scaled_svd(factor)


def _joint(operators: tuple[LinearOperator, ...]) -> LinearOperator | None:
    """The operators as one of known structure, or None."""
    size = math.prod(operators[0].out_shape)
    if len(operators) == 1:
        return Reshape(operators[0].out_shape, (size,)) @ operators[0]
    parts = [part.operator if isinstance(part, Scaled) else part for part in operators]
    indices = [chosen for chosen in map(_selected, parts) if chosen is not None]
    if len(indices) < len(parts):
        return None
    event, chosen = operators[0].in_shape, np.concatenate(indices)
    read, sources = np.unique(chosen, return_inverse=True)
    if read.size == chosen.size:
        joint = Mask(as_indices(chosen), event)
    else:
        ones = as_floats(np.ones(chosen.size))
        gather = Gather(ones, as_indices(sources), read.size, chosen.shape)
        joint = gather @ Mask(as_indices(read), event)
    if not any(isinstance(operator, Scaled) for operator in operators):
        return joint
    return Scaled(joint, jnp.concatenate([_factor(operator) for operator in operators]))


def _factor(operator: LinearOperator) -> Float[Array, " m"]:
    """What the entries of an observation are multiplied by."""
    factor = operator.factor if isinstance(operator, Scaled) else jnp.ones(())
    return jnp.broadcast_to(factor, operator.out_shape).ravel()


def _selected(operator: LinearOperator) -> np.ndarray | None:
    """Flat indices of the entries that an operator selects; None if it does something else."""
    if not operator.structure.selects:
        return None
    with at_once(operator):
        entries = jnp.arange(math.prod(operator.in_shape)).reshape(operator.in_shape)
        chosen = operator.apply(entries)
    return np.asarray(chosen).ravel() if is_known(chosen) else None
