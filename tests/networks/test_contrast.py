"""The network behind a learned twist: a table of all pairs, whatever their shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from smcdiff.networks._contrast import ContrastConfig, ContrastNetwork
from smcdiff.training import TrainConfig

IMAGE = (6, 4, 1)


@pytest.mark.parametrize(
    ("event", "observation"),
    [((3,), (2,)), ((3,), ()), ((2, 2), (5,)), (IMAGE, (7,)), (IMAGE, (6, 4)), (IMAGE, (6, 4, 2))],
)
def test_table_of_pairs(event, observation):
    """Row i and column j are y_i and x_j, within the bound."""
    network = TrainConfig(channels=(16, 16), patch=1).network(event) if len(event) == 3 else None
    config = ContrastConfig(event, observation, width=8, bound=1.0, network=network)

    @jax.jit
    def values(x, y):
        net = ContrastNetwork(config, rngs=nnx.Rngs(0))
        events = net.encode(x, jnp.array([0.0, 500.0, 1000.0]))
        observations = net.encode_observation(y)
        single = net.compare(events[2][None], observations[1][None])
        return net.table(events, observations), single[0]

    x = jax.random.normal(jax.random.key(0), (3, *event))
    y = jax.random.normal(jax.random.key(1), (2, *observation))
    table, single = values(x, y)
    assert table.shape == (2, 3) and np.unique(table).size == 6
    np.testing.assert_allclose(table[1, 2], single, rtol=1e-4, atol=1e-6)
    assert np.all(np.abs(table) < 1.0)
