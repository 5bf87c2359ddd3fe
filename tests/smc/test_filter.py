"""The particle filter against a Kalman filter, and against every way such a filter goes wrong."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff.smc import ParticleFilter, particle_filter, resampling
from tests.smc.models import (
    FromBlank,
    LinearGaussian,
    Scripted,
    kalman_log_likelihood,
    log_normal,
    observations,
    run,
)

CASES = [("systematic", 0.0)] + [
    (name, threshold)
    for name in ("systematic", "stratified", "multinomial", "residual")
    for threshold in (0.5, 1.0)
]


@functools.cache
def reference():
    """A run of 50 steps with everything stored, against which options are compared."""
    model = LinearGaussian(observations(51))
    result = particle_filter(
        jax.random.key(0),
        model,
        200,
        50,
        num_chains=3,
        store_ancestors=True,
        collect=lambda state, info: (info.t, info.ancestors, state.particles, state.log_weights),
    )
    return model, result


@pytest.mark.parametrize(("name", "threshold"), CASES)
def test_evidence_is_unbiased(name, threshold):
    # Mean of Z_hat / Z over 400 runs within 3 standard errors of 1. Lost weights, a last weight
    # that is never applied, or weights clamped or shifted, move it by far more than that.
    y = observations(9)
    result = run(
        jax.random.key(11),
        LinearGaussian(y),
        128,
        8,
        num_chains=400,
        resampling=name,
        ess_threshold=threshold,
    )
    ratio = np.exp(np.asarray(result.log_evidence, float) - kalman_log_likelihood(y))
    assert abs(ratio.mean() - 1) < 3 * ratio.std(ddof=1) / np.sqrt(400)
    fraction = np.asarray(result.resampled)[:, 1:].mean()
    assert {0.0: fraction == 0, 0.5: 0.1 < fraction < 0.9, 1.0: fraction == 1}[threshold]
    assert not result.resampled[:, 0].any()
    assert (result.failed_step == -1).all()


def test_stochastic_volatility_against_particles():
    # Both log evidences have a variance v/N from independent runs: the means of 32 runs here and 8
    # there must agree within 4 standard errors of their difference.
    particles = pytest.importorskip("particles", reason="the package particles is not installed")
    from particles import state_space_models

    class Volatility:
        def __init__(self, y):
            self.y = y

        def init(self, key):
            return -1.0 + 0.3 / jnp.sqrt(1 - 0.9**2) * jax.random.normal(key)

        def step(self, key, t, prev):
            return -1.0 + 0.9 * (prev + 1.0) + 0.3 * jax.random.normal(key)

        def log_potential(self, t, prev, particle):
            return log_normal(self.y[t], 0.0, jnp.exp(particle / 2))

    y = 0.8 * observations(60, seed=4)
    ours = jax.jit(lambda k, y: particle_filter(k, Volatility(y), 500, 59, num_chains=32))
    ours = np.asarray(ours(jax.random.key(2), y).log_evidence)
    model = state_space_models.StochVol(mu=-1.0, rho=0.9, sigma=0.3)
    theirs = []
    np.random.seed(0)
    for _ in range(8):
        bootstrap = state_space_models.Bootstrap(ssm=model, data=np.asarray(y, float))
        algorithm = particles.SMC(fk=bootstrap, N=500)
        algorithm.run()
        theirs.append(algorithm.logLt)
    error = np.sqrt(ours.var(ddof=1) / 32 + np.var(theirs, ddof=1) / 8)
    assert abs(ours.mean() - np.mean(theirs)) < 4 * error


def test_shapes_and_normalisation():
    _, result = reference()
    assert result.particles.shape == result.log_weights.shape == result.founders.shape == (3, 200)
    for field in ("ess", "log_evidence_increments", "resampled", "num_founders"):
        assert getattr(result, field).shape == (3, 51)
    np.testing.assert_allclose(np.exp(result.log_weights).sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        result.log_evidence, result.log_evidence_increments.sum(axis=1), rtol=1e-5
    )
    assert len(np.unique(result.log_evidence)) == 3  # chains are independent


def test_posterior_mean_is_the_kalman_filter_s():
    # The filtering mean of 3 x 200 particles: standard deviation 0.32, so about 0.03 with an ESS of
    # 100 a chain; 0.12 is four of them.
    model, result = reference()
    mean, variance = 0.0, 1.0
    for t, value in enumerate(np.asarray(model.y, float)):
        if t:
            mean, variance = 0.9 * mean, 0.81 * variance + 0.25
        gain = variance / (variance + 0.25)
        mean, variance = mean + gain * (value - mean), (1 - gain) * variance
    estimate = np.sum(np.exp(result.log_weights) * result.particles, axis=1).mean()
    assert abs(estimate - mean) < 0.12


def test_ess_is_that_of_the_cumulative_weights():
    _, result = reference()
    log_weights = np.moveaxis(np.asarray(result.collected[3], float), 0, 1)
    ess = 1 / np.sum(np.exp(log_weights) ** 2, axis=-1)
    np.testing.assert_allclose(result.ess, ess, rtol=1e-4)
    # Resampling fires exactly where the ESS of the step before is below half of N.
    np.testing.assert_array_equal(result.resampled[:, 1:], np.asarray(result.ess)[:, :-1] < 100)
    assert 0 < np.asarray(result.resampled).sum() < 150


def test_founders_follow_from_ancestors():
    _, result = reference()
    np.testing.assert_array_equal(result.collected[0], np.arange(51))
    np.testing.assert_array_equal(np.moveaxis(result.collected[1], 0, 1), result.ancestors)
    for chain in range(3):
        founders = np.arange(200)
        for t in range(51):
            ancestors = np.asarray(result.ancestors[chain, t])
            if not result.resampled[chain, t]:
                np.testing.assert_array_equal(ancestors, np.arange(200))
            founders = founders[ancestors]
            assert len(np.unique(founders)) == result.num_founders[chain, t]
        np.testing.assert_array_equal(founders, result.founders[chain])


def test_unsorted_resampler_of_the_user():
    def shuffled(key, weights, num_samples):
        key, sub = jax.random.split(key)
        indices = jax.random.categorical(key, jnp.log(weights), shape=(num_samples,))
        return jax.random.permutation(sub, indices)

    model, _ = reference()
    result = run(jax.random.key(0), model, 50, 20, resampling=shuffled, store_ancestors=True)
    founders = np.arange(50)
    for t in range(21):
        ancestors = np.asarray(result.ancestors[t])
        assert (np.diff(ancestors) >= 0).all()
        founders = founders[ancestors]
        assert len(np.unique(founders)) == result.num_founders[t]


def test_batches_change_nothing_but_rounding():
    model, expected = reference()
    for batch_size in (7, 256):
        result = run(jax.random.key(0), model, 200, 50, num_chains=3, batch_size=batch_size)
        for field in ("particles", "log_weights", "log_evidence", "founders", "ess"):
            # Only the order of a sum may differ.
            np.testing.assert_allclose(
                getattr(result, field), getattr(expected, field), rtol=1e-6, atol=1e-6
            )


@pytest.mark.parametrize("num_chains", [None, 2])
def test_init_and_step_are_the_run(num_chains):
    model = LinearGaussian(observations(6))
    settings = ParticleFilter(100, num_chains, store_ancestors=True)
    state = jax.jit(settings.init)(jax.random.key(3), model)
    step, infos = jax.jit(settings.step), []
    for _ in range(5):
        state, info = step(state, model)
        infos.append(info)
    result = jax.jit(settings.run, static_argnums=2)(jax.random.key(3), model, 5)
    assert state.step == 5
    np.testing.assert_array_equal(state.particles, result.particles)
    np.testing.assert_array_equal(state.log_evidence + state.compensation, result.log_evidence)
    infos = jax.tree.map(lambda *a: np.stack(a, axis=-1), *infos)
    np.testing.assert_array_equal(infos.t, np.arange(1, 6))
    np.testing.assert_array_equal(infos.ess, result.ess[..., 1:])
    np.testing.assert_array_equal(infos.resampled, result.resampled[..., 1:])
    ancestors = np.swapaxes(infos.ancestors, -1, -2)
    np.testing.assert_array_equal(ancestors, result.ancestors[..., 1:, :])


def equations(jaxpr):
    """All equations of a program, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


@pytest.mark.parametrize("num_chains", [None, 2])
def test_a_branch_skips_resampling(num_chains):
    model = LinearGaussian(observations(51))
    settings = ParticleFilter(10, num_chains)
    program = jax.make_jaxpr(lambda k: settings.run(k, model, 5))(jax.random.key(0))
    assert "callback" not in str(program)
    (cond,) = (e for e in equations(program.jaxpr) if e.primitive.name == "cond")
    branches = [list(equations(branch.jaxpr)) for branch in cond.params["branches"]]

    def resamplings(equations):
        return sum(e.params.get("name") == "systematic" for e in equations)

    assert sorted(map(resamplings, branches)) == [0, 1]
    assert resamplings(equations(program.jaxpr)) == 1


def test_gradient_flows_through_a_run():
    # Without resampling the evidence is a smooth function of the data: finite differences agree.
    def evidence(y):
        return particle_filter(
            jax.random.key(0), LinearGaussian(y), 50, 4, ess_threshold=0.0
        ).log_evidence

    y, direction = np.asarray(observations(5)), np.arange(5, dtype=np.float32)
    both = jax.jit(jax.value_and_grad(evidence))
    (above, _), (below, _) = (both(y + step * direction) for step in (1e-2, -1e-2))
    slope = np.vdot(both(y)[1], direction)
    np.testing.assert_allclose(slope, (above - below) / 2e-2, rtol=1e-2)


@pytest.mark.parametrize("num_chains", [None, 2])
def test_threshold_of_each_step(num_chains):
    y, key = observations(9), jax.random.key(3)
    options = {"num_chains": num_chains}
    late = run(key, LinearGaussian(y), 100, 8, thresholds=1.0 * (np.arange(9) > 4), **options)
    np.testing.assert_array_equal(late.resampled, np.broadcast_to(np.arange(9) > 4, late.ess.shape))
    # As in test_evidence_is_unbiased.
    thresholds = np.where(np.arange(9) > 4, 0.5, 0.0)
    many = run(key, LinearGaussian(y), 128, 8, num_chains=400, thresholds=thresholds)
    ratio = np.exp(np.asarray(many.log_evidence, float) - kalman_log_likelihood(y))
    assert abs(ratio.mean() - 1) < 3 * ratio.std(ddof=1) / np.sqrt(400)
    assert not many.resampled[:, :5].any() and many.resampled[:, 5:].any()


def test_a_model_that_starts_blank():
    # Its evidence is unbiased too; resampling blanks is left out by the first threshold.
    y = observations(9)
    thresholds = np.where(np.arange(10) > 1, 0.5, 0.0)
    key = jax.random.key(3)
    many = run(key, FromBlank(y), 128, 9, num_chains=400, thresholds=thresholds)
    ratio = np.exp(np.asarray(many.log_evidence, float) - kalman_log_likelihood(y))
    assert abs(ratio.mean() - 1) < 3 * ratio.std(ddof=1) / np.sqrt(400)
    assert not many.resampled[:, 1].any() and many.resampled[:, 2:].any()
    np.testing.assert_array_equal(many.num_founders[:, :2], 128)


def test_the_program_holds_the_work_of_a_step_once():
    class Costly(FromBlank):
        def step(self, key, t, prev):
            return jnp.tanh(super().step(key, t, prev))

    model = Costly(observations(9))
    program = jax.make_jaxpr(lambda k: particle_filter(k, model, 8, 9))(jax.random.key(0))
    assert [e.primitive.name for e in equations(program.jaxpr)].count("tanh") == 1


def test_every_key_is_used_once():
    # A particle is its own key: 3 x 40 x 21 keys of 64 bits all differ.
    @jax.tree_util.register_static
    class Draws:
        def init(self, key):
            return jax.random.key_data(key)

        def step(self, key, t, prev):
            return jax.random.key_data(key)

        def log_potential(self, t, prev, particle):
            return jnp.float32(0)

    options = {"num_chains": 3, "collect": lambda state, info: state.particles}
    result = particle_filter(jax.random.key(0), Draws(), 40, 20, **options)
    keys = np.asarray(result.collected).reshape(-1, 2)
    assert len(np.unique(keys, axis=0)) == 3 * 40 * 21


def test_unweighted():
    model, _ = reference()
    result = run(jax.random.key(0), model, 50, 10, num_chains=2, weighted=False)
    np.testing.assert_allclose(result.log_weights, -np.log(50), rtol=1e-6)
    assert np.isnan(result.log_evidence).all()
    assert not result.resampled.any() and (result.num_founders == 50).all()
    assert (result.failed_step == -1).all()


@pytest.mark.parametrize(("value", "evidence"), [(-jnp.inf, -np.inf), (jnp.nan, np.nan)])
@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_failure_names_the_step(value, evidence, threshold):
    class Failing(LinearGaussian):
        def log_potential(self, t, prev, particle):
            return jnp.where(t == 4, value, super().log_potential(t, prev, particle))

    result = run(jax.random.key(0), Failing(observations(9)), 20, 8, ess_threshold=threshold)
    assert result.failed_step == 4
    np.testing.assert_equal(np.asarray(result.log_evidence, float), evidence)
    assert np.isnan(result.log_weights).all() and np.isnan(result.ess[4:]).all()
    assert np.isfinite(result.log_evidence_increments[:4]).all()


def test_one_nan_among_the_weights_is_a_failure():
    table = np.zeros((4, 30), np.float32)
    table[2, 11] = np.nan
    result = run(jax.random.key(0), Scripted(table), 500, 3, ess_threshold=0.0)
    assert result.failed_step == 2


def test_particles_of_weight_zero_leave_no_descendants():
    table = np.zeros((3, 30), np.float32)
    table[0, ::2] = -np.inf
    result = run(jax.random.key(0), Scripted(table), 2**14, 2, ess_threshold=1.0)
    assert (np.asarray(result.particles) % 2 == 1).all()
    assert abs(float(result.log_evidence) - np.log(0.5)) < 0.05


def test_evidence_over_a_thousand_steps_in_float32():
    # All particles alike, so that the evidence is the plain sum of 1001 numbers of size 1000.
    # Summed naively in float32 it is off by tens; compensated, only the increments' own rounding
    # (3e-5 each, random) and the last digit of the total (0.06) remain.
    increments = np.float32(1000 + np.random.default_rng(0).uniform(size=1001))
    table = np.broadcast_to(increments[:, None], (1001, 2))
    result = run(jax.random.key(0), Scripted(table), 4, 1000)
    exact = np.asarray(increments, np.float64).sum()
    assert abs(float(result.log_evidence) - exact) < 0.1


def test_no_steps_is_importance_sampling():
    y = observations(1)
    result = particle_filter(jax.random.key(0), LinearGaussian(y), 20000, 0)
    # Relative standard error of one importance-sampling estimate: below 1 / sqrt(N) here.
    assert abs(float(result.log_evidence) - kalman_log_likelihood(y)) < 4 / np.sqrt(20000)
    assert result.ess.shape == (1,)


def test_raw_keys_serve_too():
    model, _ = reference()
    one = run(jax.random.PRNGKey(3), model, 10, 4)
    two = run(jax.random.key(3), model, 10, 4)
    assert one.log_evidence == two.log_evidence


def test_under_vmap_over_keys_and_data():
    models = LinearGaussian(jnp.stack([observations(6, 1), observations(6, 2)]))
    keys = jax.random.split(jax.random.key(0))
    batch = jax.jit(jax.vmap(lambda k, m: particle_filter(k, m, 50, 5)))(keys, models)
    one = run(keys[1], jax.tree.map(lambda a: a[1], models), 50, 5)
    np.testing.assert_allclose(batch.log_evidence[1], one.log_evidence, rtol=1e-5)


def test_default_scheme_is_systematic():
    model, _ = reference()
    one = run(jax.random.key(0), model, 10, 6)
    two = run(jax.random.key(0), model, 10, 6, resampling=resampling.systematic)
    assert one.log_evidence == two.log_evidence
