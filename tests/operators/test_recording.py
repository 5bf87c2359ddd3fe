"""Calls of operators are seen where somebody asks, in their thread only."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from smcdiff import operators
from smcdiff.operators._recording import record_calls

BLUR = operators.GaussianBlur((4, 4), 1.0)
MASK = operators.Mask([1, 2], (4, 4))
X = jnp.arange(16.0).reshape(4, 4)


def test_calls_of_a_model():
    """The operators that lead from a latent site to the mean of an observed one are found."""

    def model():
        x = numpyro.sample("x", dist.Normal(jnp.zeros((4, 4)), 1.0).to_event(2))
        mean = MASK(BLUR(x))
        numpyro.sample("y", dist.Normal(mean, 0.1).to_event(1), obs=jnp.zeros(2))

    with record_calls() as calls:
        trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace()
    assert [call.operator for call in calls] == [BLUR, MASK]
    assert calls[0].x is trace["x"]["value"] and calls[0].y is calls[1].x
    assert calls[1].y is trace["y"]["fn"].base_dist.loc


def test_nothing_is_recorded_outside():
    with record_calls() as calls:
        pass
    BLUR(X)
    assert calls == []


def test_nested_recordings_and_errors():
    with record_calls() as outer:
        MASK(X)
        try:
            with record_calls() as inner:
                MASK(X)
                raise KeyError
        except KeyError:
            MASK(X)
    assert (len(outer), len(inner)) == (3, 1)


def test_compositions_and_input_of_numpy():
    """A composition is one call; the input is the object that was given."""
    both = MASK @ operators.Convolution((4, 4), np.ones((3, 3)))
    given = np.ones((4, 4), np.float32)
    with record_calls() as calls:
        both(given)
    assert len(calls) == 1 and calls[0].operator is both and calls[0].x is given


def test_traced_calls():
    with record_calls() as calls:
        jax.eval_shape(MASK, X)
    assert calls[0].y.shape == (2,)


def test_threads_do_not_see_each_other():
    barrier, counts = threading.Barrier(2), {}

    def work(name, number):
        with record_calls() as calls:
            barrier.wait()
            for _ in range(number):
                MASK(X)
            barrier.wait()
        counts[name] = len(calls)

    with record_calls() as here:
        threads = [threading.Thread(target=work, args=pair) for pair in (("a", 3), ("b", 5))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == {"a": 3, "b": 5} and here == []
