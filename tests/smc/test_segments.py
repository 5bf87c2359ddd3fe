"""Runs in segments on the host: hooks, one program, and the bits of a run in one piece."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.errors import InputError
from smcdiff.smc import ParticleFilter, particle_filter, segments
from tests.smc.models import LinearGaussian, observations

KEY = jax.random.key(0)


def filtered(**options):
    settings = {"num_chains": 2, "store_ancestors": True, **options}
    return particle_filter(KEY, LinearGaussian(observations(31)), 64, 30, **settings)


def assert_same_bits(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("seconds", [0.0, 2e-3, 1e3])
def test_segments_change_no_bit(seconds, monkeypatch):
    monkeypatch.setattr(segments, "SECONDS", seconds)
    calls = []
    expected = filtered()
    before = segments._advance_reusing._cache_size()
    result = filtered(progress=lambda t, num_steps, info: calls.append((t, num_steps, info)))
    assert_same_bits(result, expected)
    assert segments._advance_reusing._cache_size() == before  # one program for all lengths
    steps = [t for t, _, _ in calls]
    assert steps[:3] == [0, 1, 2] and steps[-1] == 30 and steps == sorted(set(steps))
    assert seconds > 0 or steps == list(range(31))
    assert seconds < 1e3 or steps == [0, 1, 2, 30]
    for t, num_steps, info in calls:
        assert num_steps == 30
        np.testing.assert_array_equal(info["ess"], result.ess[:, t])
        np.testing.assert_array_equal(info["num_founders"], result.num_founders[:, t])
    np.testing.assert_array_equal(calls[-1][2]["log_evidence"], result.log_evidence)


@pytest.mark.parametrize("options", [{}, {"num_chains": None}, {"ess_threshold": 1.0}])
def test_the_bits_of_a_run_under_jit(options):
    traced = jax.jit(
        lambda key, model: particle_filter(key, model, 64, 30, **options, store_ancestors=True)
    )(KEY, LinearGaussian(observations(31)))
    assert_same_bits(filtered(**{"num_chains": None, **options}), traced)


def test_thresholds_are_data_of_the_program():
    filtered(ess_threshold=np.full(31, 0.5))
    before = segments._advance_reusing._cache_size()
    other = filtered(ess_threshold=jnp.linspace(0.1, 0.9, 31))
    assert segments._advance_reusing._cache_size() == before
    assert (other.resampled != filtered().resampled).any()


def test_collect_sees_every_step_and_keeps_what_it_saw():
    states = []

    def collect(state, info):
        states.append((state, info))
        return {"mean": jnp.mean(state.particles, axis=-1), "t": info.t}

    result = filtered(collect=collect)
    assert_same_bits(result._replace(collected=None), filtered())
    assert [int(state.step) for state, _ in states] == list(range(31))
    for t, (state, info) in enumerate(states):  # nothing was overwritten by later steps
        np.testing.assert_array_equal(info.ancestors, result.ancestors[:, t])
        np.testing.assert_array_equal(info.ess, result.ess[:, t])
        np.testing.assert_array_equal(state.ess, result.ess[:, t])
        np.testing.assert_array_equal(result.collected["mean"][t], state.particles.mean(axis=-1))
    np.testing.assert_array_equal(result.collected["t"], np.arange(31))


def test_collect_and_progress_see_no_axis_where_there_is_none():
    shapes = set()
    filtered(
        num_chains=None,
        collect=lambda state, info: shapes.add(
            (state.key.shape, state.particles.shape, info.ess.shape, info.ancestors.shape)
        ),
        progress=lambda t, n, info: shapes.add((info["ess"].shape, info["log_evidence"].shape)),
    )
    assert shapes == {((), (64,), (), (64,)), ((), ())}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_of_a_hook_ends_the_run(error):
    calls = []

    def progress(t, num_steps, info):
        calls.append(t)
        if t:
            raise error("enough")

    with pytest.raises(error, match="enough"):
        filtered(progress=progress)
    assert calls == [0, 1]


def test_the_program_is_kept_for_later_calls():
    model = LinearGaussian(observations(12))
    options = {"num_chains": 3, "progress": lambda *_: None}
    particle_filter(KEY, model, 16, 11, **options)
    sizes = segments._begin._cache_size(), segments._advance_reusing._cache_size()
    other = LinearGaussian(observations(12, seed=5))
    options["progress"] = print
    particle_filter(jax.random.key(7), other, 16, 11, **options)
    assert (segments._begin._cache_size(), segments._advance_reusing._cache_size()) == sizes


def test_hooks_are_refused_where_python_cannot_be_called():
    model = LinearGaussian(observations(4))

    def run(key, y):
        return particle_filter(key, LinearGaussian(y), 8, 3, progress=print).log_evidence

    with pytest.raises(InputError, match="which jit, vmap and grad cannot make"):
        jax.jit(run)(KEY, model.y)
    with pytest.raises(InputError, match="which jit, vmap and grad cannot make"):
        jax.vmap(run, (0, None))(jax.random.split(KEY), model.y)
    with pytest.raises(InputError, match="which jit, vmap and grad cannot make"):
        jax.grad(lambda y: run(KEY, y))(model.y)
    with pytest.raises(InputError, match="which jit, vmap and grad cannot make"):
        jax.jit(lambda: run(KEY, model.y))()


class Plain:
    """A model that is no pytree."""

    def __init__(self, y):
        self.y = y

    init, step, log_potential = (
        LinearGaussian.init, LinearGaussian.step, LinearGaussian.log_potential,
    )  # fmt: skip


def test_models_that_are_no_pytree():
    y = observations(4)
    plain = particle_filter(KEY, Plain(y), 8, 3)
    assert_same_bits(plain, particle_filter(KEY, LinearGaussian(y), 8, 3))
    with pytest.raises(InputError, match="Plain is no pytree of arrays.*NamedTuple"):
        particle_filter(KEY, Plain(y), 8, 3, progress=print)


def test_no_chains_to_differ():
    with pytest.raises(InputError, match="wants num_chains"):
        segments.run_in_segments(
            ParticleFilter(8), KEY, LinearGaussian(observations(4)), 3, chain_axes=0
        )
