"""Operators of a user's own that are not what they declare are refused when a model is read."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff import InputError, operators, priors
from smcdiff.operators import Rows, Structure
from smcdiff.problem import read


class Own(operators.LinearOperator):
    """Three entries, doubled."""

    in_shape = (3,)
    out_shape = (3,)

    def apply(self, x):
        return 2.0 * x


class NotOrthonormal(Own):
    """As somebody declares who forgot the factor."""

    structure = Structure(Rows.ORTHONORMAL, isometry=True)


class NotLinear(Own):
    """An offset."""

    def apply(self, x):
        return x + 1.0


class AnotherShape(Own):
    """It returns three entries."""

    out_shape = (2,)


class WithoutApply(operators.LinearOperator):
    """Half written."""

    in_shape = (3,)
    out_shape = (3,)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (NotOrthonormal(), "structure says Rows.ORTHONORMAL and isometry, which is not so"),
        (NotLinear(), "NotLinear: apply is not linear: of zeros it is not zero"),
        (AnotherShape(), r"apply returns shape \(3,\), and out_shape is \(2,\)"),
        (WithoutApply(), "WithoutApply must define apply"),
        (Own(), None),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, operators.LinearOperator) else "",
)
def test_what_is_declared(operator, message):
    def model(y):
        x = numpyro.sample("x", priors.Gaussian(jnp.zeros(3), 1.0))
        numpyro.sample("y", dist.Normal(operator(x), 0.5).to_event(), obs=y)

    if message is None:
        assert read(model, (jnp.zeros(operator.out_shape),)).recognised is not None
        return
    with pytest.raises(InputError, match=message):
        read(model, (jnp.zeros(operator.out_shape),))
