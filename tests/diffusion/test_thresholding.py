"""Thresholds: the range that they keep, and that kernel and twist see the same mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import priors, schedules, thresholding
from smcdiff.errors import InputError


def test_static_clips():
    found = thresholding.Static(0.5)(jnp.array([-1.0, 0.2, 0.7]))
    np.testing.assert_allclose(found, [-0.5, 0.2, 0.5])


def test_dynamic_divides_by_the_quantile():
    """Imagen, section 2.3: x clipped to its own quantile s of |x|, over s; s is at least 1."""
    x = jnp.linspace(-4.0, 4.0, 101)
    found = thresholding.Dynamic(0.9)(x)
    s = np.quantile(np.abs(x), 0.9)
    np.testing.assert_allclose(found, np.clip(x, -s, s) / s, rtol=1e-5)
    np.testing.assert_allclose(thresholding.Dynamic(0.9)(0.2 * x), 0.2 * x, rtol=1e-6)


def test_a_prior_keeps_its_means_within_the_threshold():
    prior = priors.DiffusionPrior(
        lambda x, t: 0.3 * x, schedules.Cosine(), (3,), threshold=thresholding.Static()
    )
    x, t = jnp.array([-9.0, 1.0, 9.0]), jnp.asarray(0.5)
    np.testing.assert_allclose(prior.denoise(x, t), [-1.0, 0.3, 1.0], rtol=1e-6)
    np.testing.assert_allclose(prior.posterior_mean(x, t), 0.3 * x, rtol=1e-6)
    level = prior.schedule.level(t)
    score = (level.alpha * prior.denoise(x, t) - x) / level.sigma**2
    np.testing.assert_allclose(prior.score(x, t), score, rtol=1e-6)
    assert jnp.all(jnp.abs(prior.sample(jax.random.key(0), (50,))) <= 1.0)  # the last mean


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: thresholding.Static(0.0), "bound is 0.0"),
        (lambda: thresholding.Dynamic(99.5), "not a percentage"),
        (lambda: thresholding.Dynamic(bound=-1.0), "bound is -1.0"),
    ],
)
def test_bad_input(make, match):
    with pytest.raises(InputError, match=match):
        make()
