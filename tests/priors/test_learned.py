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
        level = schedules.levels(SCHEDULE, t)
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
        prior = priors.DiffusionPrior(Scale(jnp.asarray(factor)), SCHEDULE, (3,))
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
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_event_of_one_axis():
    assert priors.DiffusionPrior(lambda x, t: x, SCHEDULE, 3).event_shape == (3,)
