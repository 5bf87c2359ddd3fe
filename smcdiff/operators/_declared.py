"""Whether an operator of a user's own is what it declares, at one random point."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from smcdiff.errors import InputError
from smcdiff.operators.algebra import LinearOperator
from smcdiff.operators.structure import Rows, is_known

_TOLERANCE = 1e-3
"""Of the largest entry: float32 products of thousands of terms agree to 1e-5."""


def check_operator(operator: LinearOperator) -> None:
    """Raises ``InputError`` where samplers would take an operator for what it is not.

    Operators of the package are tested there; of a traced one nothing can be seen.

    Raises:
        InputError: A 0 is not 0, A A* is not the identity though ``Rows.ORTHONORMAL`` is declared,
            or A* A is not though ``isometry`` is.
    """
    if type(operator).__module__.startswith("smcdiff.") or not is_known(operator):
        return
    name, structure = type(operator).__name__, operator.structure
    key_x, key_y = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, operator.in_shape)
    y = jax.random.normal(key_y, operator.out_shape)
    if jnp.any(operator(jnp.zeros(operator.in_shape)) != 0.0):
        raise InputError(f"{name}: apply is not linear: of zeros it is not zero")
    claims = {
        "Rows.ORTHONORMAL": structure.rows == Rows.ORTHONORMAL
        and _differ(operator(operator.adjoint(y)), y),
        "isometry": structure.isometry and _differ(operator.adjoint(operator(x)), x),
    }
    wrong = [claim for claim, differs in claims.items() if differs]
    if wrong:
        raise InputError(
            f"{name}: its structure says {' and '.join(wrong)}, which is not so at a random point;"
            " declare less, or correct apply"
        )


def _differ(found: jax.Array, expected: jax.Array) -> bool:
    return bool(jnp.max(jnp.abs(found - expected)) > _TOLERANCE * jnp.max(jnp.abs(expected)))
