"""In what a scene differs from a caption."""

import jax
import pytest

from smcdiff import shapes
from smcdiff.shapes.scene import MISTAKES, Scene, SeenObject


def scene(*objects):
    """Of (colour, shape) and a place each, right and down."""
    return Scene(tuple(
        SeenObject(shapes.Colour(colour), shapes.Shape(shape), right, down, 0.1)
        for (colour, shape), (right, down) in objects
    ))  # fmt: skip


RED, BLUE = ("red", "circle"), ("blue", "square")
LEFT, RIGHT, TOP, BOTTOM = (0.2, 0.5), (0.8, 0.5), (0.5, 0.2), (0.5, 0.8)
CAPTION = "a red circle above a blue square"


@pytest.mark.parametrize(
    ("seen", "mistakes"),
    [
        (scene((RED, TOP), (BLUE, BOTTOM)), ()),
        (scene((RED, BOTTOM), (BLUE, TOP)), ("relation",)),
        (scene((RED, LEFT), (BLUE, RIGHT)), ("relation",)),
        (scene((RED, TOP)), ("count",)),
        (scene(), ("count",)),
        (scene((RED, TOP), (RED, BOTTOM)), ("count",)),
        (scene((RED, TOP), (("green", "square"), BOTTOM)), ("colour",)),
        (scene((RED, TOP), (("blue", "triangle"), BOTTOM)), ("shape",)),
        (scene((("blue", "circle"), TOP), (("red", "square"), BOTTOM)), ("binding",)),
        (scene((RED, TOP), (("red", "square"), BOTTOM)), ("binding",)),
        (scene((("green", "triangle"), TOP)), ("count", "colour", "shape")),
    ],
)
def test_mistakes(seen, mistakes):
    assert seen.mistakes(shapes.parse(CAPTION)) == mistakes


def test_mistakes_of_changed_captions():
    """Of a true picture and a caption of one changed word there is one, and of its own none."""
    captions = shapes.captions()[::150]
    images = shapes.render_batch(captions, jax.random.key(0), 64)
    for image, text in zip(images, captions, strict=True):
        seen = shapes.read(image)
        assert seen is not None and seen.mistakes(shapes.parse(text)) == ()
        for other in shapes.one_word_changes(text):
            word, found = shapes.changed_word(text, other), seen.mistakes(shapes.parse(other))
            assert found and set(found) <= set(MISTAKES)
            if word in ("count", "relation"):
                assert found == (word,)
