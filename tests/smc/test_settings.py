"""Settings out of range are refused by name, with the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.errors import InputError
from smcdiff.smc import ParticleFilter, particle_filter
from tests.smc.models import LinearGaussian


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 0}, "num_particles is 0"),
        ({"num_particles": True}, "num_particles is True; it must be a whole number"),
        ({"num_particles": 2.0}, "num_particles is 2.0"),
        ({"num_particles": 2**31}, "at most 2147483647"),
        ({"num_chains": 0}, "num_chains is 0"),
        ({"num_chains": False}, "num_chains is False"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"weighted": "no"}, "weighted is 'no'; it must be True or False"),
        ({"weighted": 1}, "weighted is 1"),
        ({"store_ancestors": None}, "store_ancestors is None"),
        ({"ess_threshold": 1.5}, "ess_threshold is 1.5"),
        ({"ess_threshold": True}, "ess_threshold is True; give a fraction"),
        ({"ess_threshold": "half"}, "ess_threshold is 'half'"),
        ({"ess_threshold": np.array([0.5, -0.1])}, r"it must lie in \[0, 1\]"),
        ({"ess_threshold": float("nan")}, "ess_threshold is nan"),
        ({"resampling": "sistematic"}, "did you mean 'systematic'"),
        ({"mesh": "all"}, "mesh is 'all'; pass a jax.sharding.Mesh"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        ParticleFilter(**{"num_particles": 4, **options})


@pytest.mark.parametrize(
    ("num_steps", "options", "message"),
    [
        (-1, {}, "num_steps is -1"),
        (2, {"ess_threshold": np.ones(2)}, "one for each of the 3 weightings"),
    ],
)
def test_runs_out_of_range(num_steps, options, message):
    with pytest.raises(InputError, match=message):
        particle_filter(jax.random.key(0), LinearGaussian(jnp.zeros(3)), 4, num_steps, **options)


def test_a_filter_is_a_pytree_and_hashes():
    settings = ParticleFilter(4, ess_threshold=0.25)
    assert jax.tree.leaves(settings) == [0.25]
    assert hash(settings) == hash(ParticleFilter(np.int64(4), ess_threshold=np.float32(0.25)))
