"""The grammar: text and meaning, one-word changes, and the parts that captions belong to."""

import collections
import itertools

import jax
import pytest

from smcdiff import InputError, shapes
from smcdiff.shapes import Caption, Colour, Group, Relation, Shape, Split


def test_text_and_meaning():
    two = Group(2, Colour.RED, Shape.CIRCLE)
    one = Group(1, Colour.BLUE, Shape.SQUARE)
    assert shapes.parse("Two red  circles") == Caption((two,))
    both = Caption((two, one), Relation.LEFT_OF)
    assert str(both) == "two red circles left of a blue square"
    assert shapes.parse(str(both)) == both and both.num_objects == 3
    assert shapes.parse(both) is both


def test_all_captions():
    every = shapes.captions()
    # 4 counts x 18 kinds; 2 x 2 counts, 18 x 17 ordered pairs of kinds, 2 relations.
    assert len(set(every)) == len(every) == 72 + 4 * 18 * 17 * 2
    assert all(str(shapes.parse(caption)) == caption for caption in every)


def test_what_a_caption_is_of_and_what_is_changed():
    every = [shapes.parse(caption) for caption in shapes.captions()]
    assert collections.Counter(caption.form for caption in every) == {
        **dict.fromkeys(shapes.FORMS[:4], 18), "two groups": 4 * 18 * 17 * 2
    }  # fmt: skip
    caption = "two red circles above a blue square"
    changes = shapes.one_word_changes(caption)
    assert collections.Counter(shapes.changed_word(caption, other) for other in changes) == {
        "count": 2, "colour": 10, "shape": 4, "relation": 1
    }  # fmt: skip
    for other in (caption, "two red circles", "a red circle above two blue squares"):
        with pytest.raises(InputError, match="do not differ in one word"):
            shapes.changed_word(caption, other)


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("two red dogs", "'dogs' is not a word of the grammar; choose from a, two"),
        ("two rad circles", "'rad' is not a word of the grammar; did you mean 'red'"),
        ("two red circle", "after 'two' the plural stands, 'circles', not 'circle'"),
        ("a red circles", "after 'a' the singular stands, 'circle', not 'circles'"),
        ("red two circles", "not a count, a colour and a shape"),
        ("a red circle left a blue square", "not in the order of 'two red circles'"),
        ("", "not in the order"),
        ("three red circles above a blue square", "at most 2 objects"),
        ("a red circle above two red circles", "change the colour or the shape"),
    ],
)
def test_outside_the_grammar(caption, message):
    with pytest.raises(InputError, match=message):
        shapes.parse(caption)


def test_objects_outside_the_grammar():
    with pytest.raises(InputError, match="count is 5"):
        Group(5, Colour.RED, Shape.CIRCLE)
    with pytest.raises(InputError, match="1 groups; give one, or two and a relation"):
        Caption((Group(1, Colour.RED, Shape.CIRCLE),), Relation.ABOVE)


def _meaning(caption):
    caption = shapes.parse(caption)
    groups = [(g.count, g.colour, g.shape) for g in caption.groups]
    return (*itertools.chain(*groups), caption.relation)


def test_one_word_changes():
    """They are exactly the captions that differ in one of count, colour, shape, relation."""
    every = shapes.captions()
    for caption in every[::97]:
        said = _meaning(caption)
        meanings = ((other, _meaning(other)) for other in every)
        wanted = {
            other
            for other, meaning in meanings
            if len(meaning) == len(said)
            and sum(a != b for a, b in zip(said, meaning, strict=True)) == 1
        }
        changes = shapes.one_word_changes(caption)
        assert set(changes) == wanted and len(changes) == len(wanted)


def test_split():
    """Every word is trained on; what is unseen is so everywhere; the hash does not change."""
    parts = {part: shapes.captions(part) for part in Split}
    assert {part: len(of_part) for part, of_part in parts.items()} == {
        Split.TRAIN: 1673,
        Split.HELD_OUT: 309,
        Split.UNSEEN_COMBINATION: 538,
    }
    assert shapes.split("a green circle") is Split.HELD_OUT
    assert shapes.split("a red circle above a cyan circle") is Split.UNSEEN_COMBINATION
    assert shapes.split("three red squares") is Split.UNSEEN_COMBINATION
    alone = [shapes.parse(c).groups for c in parts[Split.TRAIN]]
    words = collections.Counter(
        word for groups in alone if len(groups) == 1 for word in str(groups[0]).split()
    )
    assert len(words) == 4 + 6 + 2 * 3 and min(words.values()) >= 2
    kinds = {group.kind for groups in alone for group in groups}
    assert len(kinds) == 16


def test_random_captions():
    drawn = shapes.random_captions(jax.random.key(0), 2000)
    assert drawn == shapes.random_captions(jax.random.key(0), 2000)
    assert {shapes.split(caption) for caption in drawn} == {Split.TRAIN}
    alone = sum(len(shapes.parse(caption).groups) == 1 for caption in drawn)
    assert abs(alone / 2000 - 0.5) < 3 * 0.5 / 2000**0.5
    part = shapes.random_captions(jax.random.key(1), 50, Split.HELD_OUT)
    assert {shapes.split(caption) for caption in part} == {Split.HELD_OUT}
    with pytest.raises(InputError, match="number is -1"):
        shapes.random_captions(jax.random.key(0), -1)
