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


def test_dynamic_by_hand():
    """Of 0, 1, ..., 4 the quantile 0.75 is 3, by which all are divided."""
    x = jnp.array([0.0, -1.0, 2.0, -3.0, 4.0])
    np.testing.assert_allclose(
        thresholding.Dynamic(0.75)(x), [0.0, -1 / 3, 2 / 3, -1.0, 1.0], rtol=1e-6
    )
    np.testing.assert_allclose(thresholding.Dynamic(1.0)(x), x / 4.0, rtol=1e-6)
    np.testing.assert_allclose(thresholding.Dynamic(0.75, bound=2.0)(x), 2 * jnp.clip(x / 3, -1, 1))
    # About -2 the distances are 2, 1, 4, -1, 6, their quantile 4, which is the widest there is.
    about = thresholding.Dynamic(0.75, bound=2.0, background=-2.0)
    np.testing.assert_allclose(about(x), jnp.clip(x, -2.0, 2.0), rtol=1e-6)
    # With 0.9 it is 5.2: -2 + (x + 2) * 4 / 5.2, which clips the last.
    more = thresholding.Dynamic(0.9, bound=2.0, background=-2.0)
    wanted = np.clip(-2.0 + (np.asarray(x) + 2.0) * 4.0 / 5.2, -2.0, 2.0)
    np.testing.assert_allclose(more(x), wanted, rtol=1e-5)


@pytest.mark.parametrize("white", [1.0, -1.0])
def test_backgrounds_at_the_bound(white):
    """An overshoot of a few pixels greys what sits at the bound, unless it is named."""
    picture = np.full((8, 8, 1), white, np.float32)
    picture[2:6, 2:6] = -0.5 * white
    picture[3, 2:5] = -1.6 * white  # of guidance
    picture[0, 0] = 1.2 * white
    seen = jnp.asarray(picture)
    flat = np.abs(picture).ravel()
    greyed = thresholding.Dynamic(0.98)(seen)
    np.testing.assert_allclose(greyed[1, 1], white / np.quantile(flat, 0.98), rtol=1e-5)
    assert abs(greyed[1, 1, 0]) < 0.8
    kept = thresholding.Dynamic(0.98, background=white)(seen)
    for exact in (kept, thresholding.Static()(seen)):
        assert np.all(exact[picture == white] == white) and exact[0, 0, 0] == white
        np.testing.assert_allclose(exact[3, 2:5], -white, atol=1e-6)
    # The object keeps its steps, which static thresholding flattens: -0.5 and -1.6 are both there.
    assert abs(kept[2, 2, 0]) < 0.5


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
        (lambda: thresholding.Dynamic(0.0), "quantile is 0.0"),
        (lambda: thresholding.Dynamic(bound=-1.0), "bound is -1.0"),
        (lambda: thresholding.Dynamic(background=255.0), "background is 255.0"),
    ],
)
def test_bad_input(make, match):
    with pytest.raises(InputError, match=match):
        make()
