"""Programs are compared by all that they read: nothing that was changed is served stale."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from smcdiff.priors import DiffusionPrior
from smcdiff.problem import read
from smcdiff.problem._program_key import program_key
from tests.problem.models import PRIOR, X, Y


def jitted(matrix):
    return jax.jit(lambda x: matrix @ x)


def scanned(matrix):
    return lambda x: jax.lax.scan(lambda carry, row: (carry, row @ x), 0.0, matrix)[1]


def branched(matrix):
    return lambda x: jax.lax.cond(x[0] > 0.0, lambda x: matrix @ x, lambda x: -matrix @ x, x)


def with_a_rule(matrix):
    @jax.custom_vjp
    def function(x):
        return matrix @ x

    function.defvjp(lambda x: (matrix @ x, None), lambda _, g: (matrix.T @ g,))
    return function


def called_back(matrix):
    shape = jax.ShapeDtypeStruct((matrix.shape[0],), jnp.float32)
    host = np.asarray(matrix)
    return lambda x: jax.pure_callback(lambda x: host @ x, shape, x, vmap_method="sequential")


def rematerialised(matrix):
    return jax.checkpoint(lambda x: jnp.sin(matrix @ x))


WAYS = [jitted, scanned, branched, with_a_rule, called_back, rematerialised]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_constants_of_nested_functions_count(way):
    forward = way(jnp.eye(3))

    def model(y):
        numpyro.sample("y", dist.Normal(forward(numpyro.sample("x", PRIOR)), 0.5), obs=y)

    first = read(model, (Y[:3],))
    assert read(model, (Y[:3],)).key == first.key
    forward = way(5.0 * jnp.eye(3))
    assert read(model, (Y[:3],)).key != first.key


def test_a_function_made_at_every_trace_is_the_same_program():
    """Else every run would compile."""
    weights = np.eye(3, dtype=np.float32)

    def model(y):
        x = numpyro.sample("x", PRIOR)
        shape = jax.ShapeDtypeStruct((3,), jnp.float32)
        mean = jax.pure_callback(lambda x: weights @ x, shape, x, vmap_method="sequential")
        numpyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)

    assert read(model, (Y[:3],)).key == read(model, (Y[:3],)).key


def test_a_derivative_rule_counts():
    slope = 1.0

    @jax.custom_vjp
    def function(x):
        return x

    function.defvjp(lambda x: (x, None), lambda _, g: (slope * g,))

    def model(y):
        numpyro.sample("y", dist.Normal(function(numpyro.sample("x", PRIOR)), 0.5), obs=y)

    first = read(model, (Y[:3],))
    slope = 2.0
    assert read(model, (Y[:3],)).key != first.key


def test_what_cannot_be_traced_equals_nothing():
    def fails(x):
        raise ValueError("no")

    assert program_key(fails, X) != program_key(fails, X)


def test_a_plain_denoiser_is_read_anew():
    gain = 0.0
    prior = DiffusionPrior(lambda x, t: gain * x, PRIOR.schedule, (3,))

    def model(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("x", prior), 0.5).to_event(1), obs=y)

    first = read(model, (Y[:3],))
    assert read(model, (Y[:3],)).key == first.key
    gain = 0.1
    assert read(model, (Y[:3],)).key != first.key


def test_the_fingerprint_is_that_of_another_process():
    """It is a hash of the equations alone; this value is a change of the format, not of JAX's."""

    def model(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("x", PRIOR), 0.5).to_event(1), obs=y)

    first, second = (read(model, (Y[:3],)).fingerprint for _ in range(2))
    assert first == second


def test_what_is_known_of_a_callback_in_another_process():
    """Its code and the arrays that it closes over; a key holds the very objects."""
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)

    def doubled(x):
        return 2.0 * x

    def tripled(x):
        return 3.0 * x

    def fingerprint(host, weights=None):
        call = host if weights is None else lambda x: weights * x
        traced = lambda x: jax.pure_callback(call, shape, x, vmap_method="sequential")  # noqa: E731
        return program_key(traced, jnp.zeros(3)).fingerprint

    assert fingerprint(doubled) == fingerprint(doubled) != fingerprint(tripled)

    # Of globals what a function reads; what it writes itself is a counter, say.
    def host(scale, calls):
        namespace = {"scale": scale, "calls": calls}
        exec("def host(x):\n global calls\n calls += 1\n return scale * x", namespace)
        return fingerprint(namespace["host"])

    assert host(2.0, 0) == host(2.0, 7) != host(3.0, 0)
    first, equal, other = np.ones(3), np.ones(3), np.zeros(3)
    assert fingerprint(None, first) == fingerprint(None, equal) != fingerprint(None, other)
