"""Models that do not fit the protocol are refused with the remedy."""

import jax
import jax.numpy as jnp
import pytest

from smcdiff.errors import InputError
from smcdiff.smc import FeynmanKac
from smcdiff.smc.feynman_kac import check
from tests.smc.models import LinearGaussian


class VectorWeight(LinearGaussian):
    def log_potential(self, t, prev, particle):
        return jnp.zeros(3)


class Reshaping(LinearGaussian):
    def step(self, key, t, prev):
        return jnp.zeros(2)


class Restructuring(LinearGaussian):
    def step(self, key, t, prev):
        return {"x": prev}


class Weightless:
    def init(self, key):
        return jax.random.normal(key)

    def step(self, key, t, prev):
        return prev


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (VectorWeight(jnp.zeros(3)), r"shape \(3,\); return a scalar"),
        (Reshaping(jnp.zeros(3)), r"steps to shape \(2,\)"),
        (Restructuring(jnp.zeros(3)), "return the same structure"),
        (Weightless(), "has no log_potential; define"),
        (object(), "has no init or step or log_potential"),
    ],
)
def test_models_that_do_not_fit(model, message):
    with pytest.raises(InputError, match=message):
        check(model, jax.random.key(0))


def test_the_protocol_can_be_asked_for():
    assert isinstance(LinearGaussian(jnp.zeros(3)), FeynmanKac)
    assert not isinstance(Weightless(), FeynmanKac)


def test_numbers_of_python_are_particles_too():
    class Plain(LinearGaussian):
        def init(self, key):
            return 0.0

        def step(self, key, t, prev):
            return 1.0

        def log_potential(self, t, prev, particle):
            return 0.0

    assert check(Plain(jnp.zeros(3)), jax.random.key(0)) == jnp.float32
