"""Distances of feature sets against closed forms, and by going through all sets there are."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError
from smcdiff.diagnostics import frechet_distance, kernel_distance


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def with_moments(rng, count, mean, root):
    """Points whose own mean and covariance are exactly these: mean, and root root'."""
    points = rng.standard_normal((count, len(mean)))
    points -= points.mean(axis=0)
    whitened = (
        points @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(points, rowvar=False)))).T
    )
    return mean + whitened @ root.T


def rotation(rng, size):
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


@pytest.mark.parametrize("size", [1, 5])
def test_frechet_distance_of_gaussians_that_commute(rng, size):
    """|difference|^2 + sum (s - r)^2, of standard deviations along common axes."""
    axes, shift = rotation(rng, size), rng.standard_normal(size)
    own, real = rng.uniform(0.5, 2.0, (2, size))
    a = with_moments(rng, 40, shift, axes * own)
    b = with_moments(rng, 60, np.zeros(size), axes * real)
    expected = shift @ shift + np.sum((own - real) ** 2)
    assert frechet_distance(a, b, size) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a, size) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_gaussians_that_do_not_commute(rng):
    """For 2 x 2, tr (AB)^(1/2) = sqrt(tr(AB) + 2 sqrt(det(AB)))."""
    roots = rng.standard_normal((2, 2, 2))
    a, b = (with_moments(rng, 30, np.zeros(2), root) for root in roots)
    first, second = (root @ root.T for root in roots)
    product = first @ second
    overlap = np.sqrt(np.trace(product) + 2.0 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(first) + np.trace(second) - 2.0 * overlap
    assert frechet_distance(a, b, 2) == pytest.approx(expected, rel=1e-9)
    shifted = frechet_distance(a + np.array([3.0, -4.0]), b, 2)
    assert shifted == pytest.approx(expected + 25.0, rel=1e-9)


def test_frechet_distance_is_in_the_main_directions_of_the_reference(rng):
    """A shift along its two widest counts; one along the third does not."""
    scales, axes = np.array([5.0, 3.0, 1.0]), rotation(rng, 3)
    real = with_moments(rng, 50, np.ones(3), axes * scales)
    along = real + 2.0 * axes[:, 1]
    assert frechet_distance(along, real, 2) == pytest.approx(4.0, rel=1e-9)
    across = real + 2.0 * axes[:, 2]
    assert frechet_distance(across, real, 2) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(across, real, 3) == pytest.approx(4.0, rel=1e-9)


def test_frechet_distance_of_what_varies_in_few_directions(rng):
    """The reference has components without variance: (1 - 0)^2 is left of each."""
    real = np.concatenate(
        [with_moments(rng, 20, np.zeros(1), np.eye(1)), np.zeros((20, 2))], axis=1
    )
    own = with_moments(rng, 30, np.zeros(3), np.eye(3))
    assert frechet_distance(own, real, 3) == pytest.approx(2.0, rel=1e-6)
    assert frechet_distance(real, real, 3) == pytest.approx(0.0, abs=1e-12)


def test_float32_is_enough(rng):
    """Features of JAX, with a mean far from 0: the sums are in double precision."""
    axes = rotation(rng, 4)
    a, b = (
        with_moments(rng, 40, np.full(4, 100.0), axes),
        with_moments(rng, 40, np.full(4, 101.0), axes),
    )
    found = frechet_distance(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), 4)
    assert found == pytest.approx(4.0, rel=1e-5)


def test_kernel_distance_by_its_definition(rng):
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((5, 3)) + 1.0

    def kernel(x, y):
        return (x @ y / 3.0 + 1.0) ** 3

    within = [np.mean([kernel(x, y) for x, y in itertools.permutations(s, 2)]) for s in (a, b)]
    between = np.mean([kernel(x, y) for x, y in itertools.product(a, b)])
    expected = sum(within) - 2.0 * between
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(b, a) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shares", [(0.3, 0.3), (0.3, 0.8)])
def test_kernel_distance_is_unbiased(shares):
    """The mean over all sets of 2 and of 3 points out of {-1, 2}, by their probabilities.

    It is the squared discrepancy of the two laws, 0 where they are one, though single sets of one
    law have distances of either sign.
    """
    values = np.array([-1.0, 2.0])
    laws = [np.array([1.0 - share, share]) for share in shares]
    gram = (values[:, None] * values + 1.0) ** 3
    expected = (laws[0] - laws[1]) @ gram @ (laws[0] - laws[1])
    mean, found = 0.0, []
    for drawn in itertools.product((0, 1), repeat=5):
        first, second = list(drawn[:2]), list(drawn[2:])
        found.append(kernel_distance(values[first][:, None], values[second][:, None]))
        mean += laws[0][first].prod() * laws[1][second].prod() * found[-1]
    assert mean == pytest.approx(expected, abs=1e-9)
    assert min(found) < 0.0 < max(found)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_sets_that_cannot_be(rng, distance):
    good, name = rng.standard_normal((80, 70)), distance.__name__
    with pytest.raises(InputError, match=rf"{name}: the sets have shapes \(80, 70\) and \(80, 6\)"):
        distance(good, good[:, :6])
    with pytest.raises(InputError, match=rf"{name}: the sets have shapes \(80,\) and \(80, 70\)"):
        distance(good[:, 0], good)
    with pytest.raises(InputError, match="give two points or more of each"):
        distance(good, good[:1])
    bad = good.copy()
    bad[3:5, 7] = np.nan, np.inf
    with pytest.raises(InputError, match="2 points of the second set have entries that are not fi"):
        distance(good, bad)


@pytest.mark.parametrize(
    ("own", "real", "entries", "components"), [(64, 80, 70, 64), (80, 64, 70, 64), (80, 80, 63, 64),
                                               (80, 80, 70, 0)],
)  # fmt: skip
def test_too_few_points_for_the_components(rng, own, real, entries, components):
    """65 points have 64 components, and 64 points have 63."""
    points = rng.standard_normal((80, entries))
    with pytest.raises(InputError, match=r"give more points, or at most \d+ components"):
        frechet_distance(points[:own], points[:real], components)


def test_as_many_components_as_there_can_be(rng):
    points = rng.standard_normal((65, 64))
    assert frechet_distance(points, points) == pytest.approx(0.0, abs=1e-9)
