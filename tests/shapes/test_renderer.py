"""The renderer: what it draws, where, and the same at every size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, shapes
from smcdiff.shapes import _figures, _layout
from smcdiff.shapes.grammar import every_caption

KEY = jax.random.key(0)
PLACE = jax.jit(jax.vmap(_layout.place))
CAPTIONS = shapes.random_captions(jax.random.key(1), 64, None)


def test_a_key_gives_one_scene_at_every_size():
    large = np.asarray(shapes.render_batch(CAPTIONS, KEY, 64))
    assert large.shape == (64, 64, 64, 3) and large.dtype == np.float32
    for size in (32, 16):
        block = 64 // size
        pooled = large.reshape(64, size, block, size, block, 3).mean((2, 4))
        small = shapes.render_batch(CAPTIONS, KEY, size)
        np.testing.assert_allclose(small, pooled, atol=1e-6)  # rounding of the mean alone


def test_a_batch_is_its_pictures():
    batch = shapes.render_batch(CAPTIONS, KEY)
    np.testing.assert_array_equal(batch, shapes.render_batch(CAPTIONS, KEY))
    keys = jax.random.split(KEY, 64)
    for i in (0, 40):
        np.testing.assert_allclose(shapes.render(CAPTIONS[i], keys[i]), batch[i], atol=1e-6)


@pytest.mark.parametrize("background", [shapes.GREY, shapes.WHITE])
def test_colours(background):
    """Colours and background as documented, none at the bound but a white background."""
    caption = "two yellow circles above a blue square"
    image = np.asarray(shapes.render(caption, KEY, 64, background=background)).reshape(-1, 3)
    colours, counts = np.unique(image.round(4), axis=0, return_counts=True)
    frequent = colours[np.argsort(counts)[-3:]]
    wanted = [[background] * 3, *(shapes.PALETTE[shapes.Colour(c)] for c in ("yellow", "blue"))]
    assert {tuple(c) for c in frequent} == {tuple(np.float32(c)) for c in wanted}
    assert np.abs(image[np.any(image != background, axis=-1)]).max() < 1.0


@pytest.mark.parametrize("number", range(3))
def test_covered_area(number):
    """The sum of the coverage is the area: within 0.3 % for a radius of 10 pixels of the grid."""
    grid = _figures.pixel_centres(np)
    right, down = np.meshgrid(grid - 0.513, grid - 0.487)
    radius = 10 / _figures.DRAWN_AT
    covered = _figures.coverage(np, right, down, radius)[number]
    area = _figures.AREAS[number] * 10**2
    assert abs(covered.sum() / area - 1.0) < 0.003
    for offset in (right, down):  # the centre is the centroid
        assert abs((covered * offset).sum() / covered.sum()) < 0.02 / _figures.DRAWN_AT
    reach = np.hypot(right, down)[covered > 0.5].max()
    assert reach < _figures.REACH * radius + 0.5 / _figures.DRAWN_AT


def test_places():
    """Of scenes of 504 captions: apart, inside, in the relation, and none too small."""
    every = every_caption()[::5]
    codes = _layout.encode(every)
    keys = jax.random.split(KEY, len(every))
    places = jax.tree.map(np.asarray, PLACE(keys, codes))
    present = codes.present
    assert places.radii.min() > 0.1  # 3.2 pixels of 32
    for centre in (places.right, places.down):
        edge = np.minimum(centre, 1.0 - centre) - _figures.REACH * places.radii
        assert edge.min() > _layout.MARGIN - 1e-5
    for row, caption in enumerate(every):
        used = present[row]
        right, down, radii = (field[row][used] for field in places)
        across, along = np.subtract.outer(right, right), np.subtract.outer(down, down)
        apart = np.hypot(across, along) / np.add.outer(radii, radii) + 10.0 * np.eye(len(radii))
        assert apart.min() > 1.3 - 1e-4
        if caption.relation:
            steps = (across if caption.relation is shapes.Relation.LEFT_OF else along).T
            later = ~codes.is_first[row][used]
            assert steps[np.ix_(~later, later)].min() > 2.6 * radii.min() - 1e-4


def test_sizes_and_places_vary():
    """A single object is uniform in its range of sizes: mean within 3 standard errors."""
    number = 504  # as above: one program
    codes = _layout.encode((shapes.parse("a red circle"),) * number)
    places = PLACE(jax.random.split(KEY, number), codes)
    low, high = _layout.SMALLEST, _layout.LARGEST[0]
    radii = np.asarray(places.radii[:, 0])
    mean = 0.5 * (low + high) * (1.0 - 0.5 * _layout.UNEQUAL)
    assert abs(radii.mean() - mean) < 3 * radii.std() / number**0.5
    right = np.asarray(places.right[:, 0])
    assert abs(right.mean() - 0.5) < 3 * right.std() / number**0.5
    assert jnp.std(places.down[:, 0]) > 0.1


def test_errors():
    with pytest.raises(InputError, match="size is 48; it must be one of"):
        shapes.render("a red circle", KEY, 48)
    with pytest.raises(InputError, match="background is 2.0"):
        shapes.render("a red circle", KEY, background=2.0)
    with pytest.raises(InputError, match="'dogs' is not a word"):
        shapes.render_batch(["a red circle", "two red dogs"], KEY)
    for captions in ("a red circle", []):
        with pytest.raises(InputError, match="a sequence of one caption or more"):
            shapes.render_batch(captions, KEY)
