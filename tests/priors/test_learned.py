"""DiffusionPrior around plain and parameterised denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import priors, schedules
from smcdiff.base.module import Module
from smcdiff.errors import InputError

SCHEDULE = schedules.Cosine()
ORACLE = priors.Gaussian(jnp.array([1.0, -1.0]), jnp.array([0.5, 0.1]), SCHEDULE)


def _network(prediction):
    """A "network" that is right: the closed-form denoiser, in the given parameterisation."""

    def denoiser(x, t):
        level = SCHEDULE.level(t)
        clean = ORACLE.denoise(x, t)
        return prediction.target(clean, (x - level.alpha * clean) / level.sigma, level)

    return denoiser


@pytest.mark.parametrize(
    "prediction",
    [priors.X0Prediction(), priors.EpsPrediction(), priors.VPrediction()],
    ids=lambda p: type(p).__name__,
)
def test_every_prediction_becomes_the_same_denoiser(prediction):
    prior = priors.DiffusionPrior(_network(prediction), SCHEDULE, (2,), prediction)
    x, t = jnp.array([0.3, -0.7]), jnp.asarray(0.6)
    np.testing.assert_allclose(prior.denoise(x, t), ORACLE.denoise(x, t), rtol=1e-5)


def test_sample_follows_the_prior():
    """Mean within 4 standard errors; variance within 10 %: 100 DDPM steps shrink it by 2 to 4 %."""
    prior = priors.DiffusionPrior(ORACLE.denoise, SCHEDULE, (2,))
    x = prior.sample(jax.random.key(0), (20_000,))
    assert jnp.all(jnp.abs(x.mean(0) - ORACLE.mean) < 4 * x.std(0) / 20_000**0.5)
    np.testing.assert_allclose(x.var(0), ORACLE.variance, rtol=0.1)


def test_parameters_enter_jit_as_arguments():
    class Scale(Module):
        factor: jax.Array

        def __call__(self, x, t):
            return self.factor * x

    traces = []

    @jax.jit
    def run(prior, x):
        traces.append(1)
        return prior.denoise(x, jnp.asarray(0.5))

    for factor in (0.5, 2.0):
        prior = priors.DiffusionPrior(Scale(jnp.asarray(factor)), SCHEDULE, (3,), probe=False)
        np.testing.assert_allclose(run(prior, jnp.ones(3)), factor)
    assert len(traces) == 1


def test_wrong_output_shape():
    with pytest.raises(InputError, match="returns shape"):
        priors.DiffusionPrior(lambda x, t: x[:2], SCHEDULE, (3,))


def test_failing_denoiser_without_a_word():
    def silent(x, t):
        raise ValueError

    with pytest.raises(InputError, match="fails on x of shape .*ValueError: no message"):
        priors.DiffusionPrior(silent, SCHEDULE, (3,))


def test_failing_denoiser():
    with pytest.raises(InputError, match="fails on x of shape"):
        priors.DiffusionPrior(lambda x, t: x @ jnp.ones((5, 5)), SCHEDULE, (3,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.DiffusionPrior(lambda x, t: (x, x), SCHEDULE, (3,)), "one array"),
        (lambda: priors.DiffusionPrior(lambda x, t: x, SCHEDULE, (3,), "eps"), "prediction is"),
        (
            lambda: priors.DiffusionPrior(
                lambda x, t: x, schedules.Cosine(), (3,), data_variance=2500.0
            ),
            "scale the data, or take a larger t_max",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_event_of_one_axis():
    assert priors.DiffusionPrior(lambda x, t: 0.0 * x, SCHEDULE, 3).event_shape == (3,)


def in_a_batch(x, t):
    """A network that wants a leading axis of a batch, for x and t."""
    return 0.1 * x * jnp.ones((1, 3)) if x.ndim == 2 and t.ndim == 1 else 1 / 0


def with_one_time(x, t):
    return 0.1 * x if x.ndim == 2 and t.ndim == 0 else 1 / 0


@pytest.mark.parametrize(
    ("denoiser", "match"),
    [
        (in_a_batch, r"it wants a batch: pass lambda x, t: network\(x\[None\], t\[None\]\)\[0\]"),
        (with_one_time, r"it wants a batch: pass lambda x, t: network\(x\[None\], t\)\[0\]"),
        (lambda x, t: np.asarray(x) * 0.1, "outside JAX: use jax.numpy, or .*pure_callback"),
        (lambda x, t: 0.1 * x if x[0] > 0 else x, "outside JAX"),
        (lambda x, t: x * jnp.nan, "the denoiser returns NaN or infinite values"),
    ],
)
def test_what_is_likely_wrong_with_a_denoiser(denoiser, match):
    with pytest.raises(InputError, match=match):
        priors.DiffusionPrior(denoiser, SCHEDULE, (3,))


PREDICTIONS = {
    "x0": priors.X0Prediction(),
    "eps": priors.EpsPrediction(),
    "v": priors.VPrediction(),
}
UNIT = priors.Gaussian(jnp.zeros(16), 1.0, SCHEDULE)


def _right(prediction, unit=1.0):
    """A network that is right for data of unit variance, and takes the time in another unit."""

    def network(x, t):
        level = SCHEDULE.level(jnp.clip(unit * t, SCHEDULE.t_min, SCHEDULE.t_max))
        clean = UNIT.denoise(x, level.time)
        return prediction.target(clean, (x - level.alpha * clean) / level.sigma, level)

    return network


@pytest.mark.parametrize(
    ("true", "declared"),
    [("x0", "eps"), ("v", "eps"), ("eps", "x0"), ("eps", "v")],  # x0 and v differ too little
)
def test_a_prediction_of_another_kind_is_caught(true, declared):
    with pytest.raises(InputError, match="at t_max the denoised mean follows the noise"):
        priors.DiffusionPrior(_right(PREDICTIONS[true]), SCHEDULE, (16,), PREDICTIONS[declared])


def test_another_unit_of_time_is_caught():
    """A network that wants n = 1000 t is given t, and takes all it sees for data without noise."""
    eps = PREDICTIONS["eps"]
    with pytest.raises(InputError, match="the unit of time"):
        priors.DiffusionPrior(_right(eps, unit=1e-3), SCHEDULE, (16,), eps)


def test_the_probe_can_be_left_out():
    prior = priors.DiffusionPrior(lambda x, t: x, SCHEDULE, (3,), probe=False)
    assert prior.event_shape == (3,)


@pytest.mark.parametrize("variance", [1e-4, 1.0, 100.0])
def test_right_denoisers_pass_whatever_the_units(variance):
    schedule = schedules.VarianceExploding(t_max=10.0 * variance**0.5)
    oracle = priors.Gaussian(jnp.zeros(16), variance, schedule)
    priors.DiffusionPrior(oracle.denoise, schedule, (16,), data_variance=variance)
    cosine = priors.Gaussian(jnp.zeros(16), variance, SCHEDULE)
    priors.DiffusionPrior(cosine.denoise, SCHEDULE, (16,), data_variance=variance)


def test_edm_is_the_published_preconditioning():
    """Karras et al. (2022), table 1, on their schedule: c_skip x + c_out F(c_in x, ln(s) / 4)."""
    schedule = schedules.VarianceExploding(t_min=0.002, t_max=80.0)
    prior = priors.DiffusionPrior(
        lambda x, noise: jnp.tanh(x) * noise, schedule, (3,), priors.EDMPrediction(0.5), probe=False
    )
    x, s, d = np.array([0.3, -1.0, 2.0]), 1.7, 0.5
    total = s**2 + d**2
    network = np.tanh(x / np.sqrt(total)) * np.log(s) / 4
    expected = d**2 / total * x + s * d / np.sqrt(total) * network
    np.testing.assert_allclose(prior.denoise(jnp.asarray(x), jnp.asarray(s)), expected, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_a_class_where_an_object_is_meant():
    with pytest.raises(InputError, match="pass an object, for example priors.EpsPrediction()"):
        priors.DiffusionPrior(lambda x, t: x, SCHEDULE, (3,), priors.EpsPrediction)
    with pytest.raises(InputError, match="pass an object of smcdiff.schedules"):
        priors.DiffusionPrior(lambda x, t: x, schedules.Cosine, (3,))


def test_rough_draws_are_where_the_prior_is():
    """Of a denoiser at t_max nothing but mean and variance is known, and of a Gaussian all is."""
    prior = priors.DiffusionPrior(ORACLE.denoise, SCHEDULE, (2,), data_variance=0.5)
    rough, exact = (p.rough_draws(jax.random.key(0), 10_000) for p in (prior, ORACLE))
    for draws in (rough, exact):
        assert jnp.all(jnp.abs(draws.mean(0) - ORACLE.mean) < 0.03)  # four standard errors
    np.testing.assert_allclose(rough.var(0), 0.5, rtol=0.06)
    np.testing.assert_allclose(exact.var(0), ORACLE.variance, rtol=0.06)
