"""The grammar of captions: what they say, as objects and as text, and what differs by one word.

A caption is one group, "three red circles" (1 to 4 of a kind), or two groups of 1 or 2 that stand
"above" or "left of" one another, "two red circles above a blue square". The two groups differ in
colour or shape: no picture could tell "a red circle above a red circle" from "two red circles".
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
from collections.abc import Iterator

from smcdiff.errors import InputError, did_you_mean


class Colour(enum.Enum):
    """The six colours: the corners of the colour cube but black and white."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"
    YELLOW = "yellow"
    MAGENTA = "magenta"
    CYAN = "cyan"


class Shape(enum.Enum):
    """The three shapes; squares lie on a side, triangles point upwards."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"


class Relation(enum.Enum):
    """How the first group stands to the second."""

    ABOVE = "above"
    LEFT_OF = "left of"


COUNTS = ("a", "two", "three", "four")
"""The words for 1 to 4."""
MAX_COUNT = len(COUNTS)
FORMS = ("one", "two", "three", "four", "two groups")
"""What a caption is of: so many objects of a kind, or two groups."""
MAX_COUNT_RELATED = 2
"""Of a group that stands in a relation."""
_SINGULAR = {shape.value: shape for shape in Shape}
_PLURAL = {f"{shape.value}s": shape for shape in Shape}
_COLOURS = {colour.value: colour for colour in Colour}
_RELATIONS = {relation.value: relation for relation in Relation}
_WORDS = (*COUNTS, *_COLOURS, *_SINGULAR, *_PLURAL, "above", "left", "of")
_FORM = "'two red circles' or 'two red circles above a blue square'"


@dataclasses.dataclass(frozen=True)
class Group:
    """Objects of one kind.

    Attributes:
        count: how many, 1 to 4.
        colour: of each.
        shape: of each.

    Raises:
        InputError: another count.
    """

    count: int
    colour: Colour
    shape: Shape

    def __post_init__(self):
        if not 1 <= self.count <= MAX_COUNT:
            raise InputError(f"shapes.Group: count is {self.count}; it must be 1 to {MAX_COUNT}")

    @property
    def kind(self) -> tuple[Colour, Shape]:
        """Colour and shape."""
        return self.colour, self.shape

    def __str__(self) -> str:
        ending = "s" if self.count > 1 else ""
        return f"{COUNTS[self.count - 1]} {self.colour.value} {self.shape.value}{ending}"


@dataclasses.dataclass(frozen=True)
class Caption:
    """What a caption says; its text is ``str(caption)``.

    Attributes:
        groups: one, or two that differ in colour or shape.
        relation: of the first group to the second; None where there is one.

    Raises:
        InputError: counts, groups or a relation outside the grammar.
    """

    groups: tuple[Group, ...]
    relation: Relation | None = None

    def __post_init__(self):
        if fault := _fault(self.groups, self.relation):
            raise InputError(f"caption '{self}': {fault}")

    @property
    def num_objects(self) -> int:
        """Of both groups."""
        return sum(group.count for group in self.groups)

    @property
    def form(self) -> str:
        """One of `FORMS`."""
        return FORMS[-1] if self.relation else FORMS[self.num_objects - 1]

    def __str__(self) -> str:
        between = f" {self.relation.value} " if self.relation else " "
        return between.join(str(group) for group in self.groups)


def parse(caption: str | Caption) -> Caption:
    """Reads a caption; letters may be large or small.

    Args:
        caption: text; a `Caption` is returned as it is.

    Returns:
        What it says.

    Raises:
        InputError: a word outside the grammar, which is named beside those that there are; a
            singular where a plural must stand, or the reverse; or words in another order.
    """
    return caption if isinstance(caption, Caption) else _parse(caption)


@functools.lru_cache(maxsize=8192)  # more than there are captions: training reads them many times
def _parse(text: str) -> Caption:
    words = text.lower().split()
    for word in words:
        if word not in _WORDS:
            hint = did_you_mean(word, _WORDS)
            raise InputError(f"caption '{text}': '{word}' is not a word of the grammar; {hint}")
    if len(words) == 3:
        return Caption((_group(text, words),))
    relation = _RELATIONS.get(" ".join(words[3:-3]))
    if relation is None:
        raise InputError(f"caption '{text}': its words are not in the order of {_FORM}")
    return Caption((_group(text, words[:3]), _group(text, words[-3:])), relation)


def _group(text: str, words: list[str]) -> Group:
    count, colour, shape = words
    if count not in COUNTS or colour not in _COLOURS or shape not in {**_SINGULAR, **_PLURAL}:
        raise InputError(
            f"caption '{text}': '{' '.join(words)}' is not a count, a colour and a shape, in this"
            f" order; write {_FORM}"
        )
    number = COUNTS.index(count) + 1
    names, form = (_SINGULAR, "singular") if number == 1 else (_PLURAL, "plural")
    if shape not in names:
        right = shape.rstrip("s") + ("" if number == 1 else "s")
        raise InputError(
            f"caption '{text}': after '{count}' the {form} stands, '{right}', not '{shape}'"
        )
    return Group(number, _COLOURS[colour], names[shape])


def _fault(groups: tuple[Group, ...], relation: Relation | None) -> str:
    """What is outside the grammar, and the remedy; empty where nothing is."""
    if len(groups) != (1 if relation is None else 2):
        return f"{len(groups)} groups; give one, or two and a relation between them"
    if relation is None:
        return ""
    if any(group.count > MAX_COUNT_RELATED for group in groups):
        return f"beside another group stand at most {MAX_COUNT_RELATED} objects of a kind"
    if groups[0].kind == groups[1].kind:
        return (
            "both groups are of one colour and shape, which no picture can tell apart; change"
            " the colour or the shape of one"
        )
    return ""


@functools.cache
def every_caption() -> tuple[Caption, ...]:
    """All captions of the grammar, those of one group first."""
    kinds = list(itertools.product(Colour, Shape))
    alone = [Caption((Group(n, *kind),)) for n in range(1, MAX_COUNT + 1) for kind in kinds]
    counts = range(1, MAX_COUNT_RELATED + 1)
    groups = [Group(n, *kind) for n in counts for kind in kinds]
    related = [
        Caption(pair, relation)
        for pair in itertools.product(groups, groups)
        if pair[0].kind != pair[1].kind
        for relation in Relation
    ]
    return (*alone, *related)


def one_word_changes(caption: str | Caption) -> tuple[str, ...]:
    """All captions that differ in one count, colour, shape or relation: hard negatives.

    "two red circles above a blue square" becomes "two red circles above a green square", say. With
    a count the ending of the shape changes as well.

    Args:
        caption: of the grammar.

    Returns:
        10 captions of one with one group, 15 or 17 of one with two.

    Raises:
        InputError: a caption outside the grammar.
    """
    caption = parse(caption)
    groups, relation = caption.groups, caption.relation
    changes = [
        ((*groups[:place], changed, *groups[place + 1 :]), relation)
        for place, group in enumerate(groups)
        for changed in _changes(group)
    ]
    if relation:
        changes += [(groups, other) for other in Relation if other is not relation]
    return tuple(str(Caption(*change)) for change in changes if not _fault(*change))


def _changes(group: Group) -> Iterator[Group]:
    """Groups that differ in one thing."""
    options = {"count": range(1, MAX_COUNT + 1), "colour": Colour, "shape": Shape}
    for name, values in options.items():
        for value in values:
            if value != getattr(group, name):
                yield dataclasses.replace(group, **{name: value})


def changed_word(caption: str | Caption, other: str | Caption) -> str:
    """In what a caption differs from one of its `one_word_changes`.

    Args:
        caption: of the grammar.
        other: differs in one thing.

    Returns:
        "count", "colour", "shape" or "relation".

    Raises:
        InputError: captions outside the grammar, or that differ in more, or not at all.
    """
    caption, other = parse(caption), parse(other)
    changed = ["relation"] if caption.relation is not other.relation else []
    for one, two in zip(caption.groups, other.groups, strict=False):
        words = ("count", "colour", "shape")
        changed += [name for name in words if getattr(one, name) != getattr(two, name)]
    if len(changed) != 1 or len(caption.groups) != len(other.groups):
        raise InputError(f"captions '{caption}' and '{other}' do not differ in one word")
    return changed[0]
