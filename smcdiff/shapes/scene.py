"""What is seen in a picture, and whether a caption says it."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

from smcdiff.shapes.grammar import MAX_COUNT, Caption, Colour, Group, Relation, Shape

MISTAKES = ("count", "colour", "shape", "binding", "relation")
"""In what a scene may differ from a caption, see `Scene.mistakes`."""


@dataclasses.dataclass(frozen=True)
class SeenObject:
    """One object of a picture; lengths are in sides of the picture.

    Attributes:
        colour: of the six.
        shape: of the three.
        right: of the centre, from the left border.
        down: of the centre, from the upper border.
        radius: of a circle; a square's half side is 0.8 of it, the circle within a triangle 0.62.
    """

    colour: Colour
    shape: Shape
    right: float
    down: float
    radius: float

    @property
    def kind(self) -> tuple[Colour, Shape]:
        """Colour and shape."""
        return self.colour, self.shape


@dataclasses.dataclass(frozen=True)
class Scene:
    """All objects of a picture.

    Attributes:
        objects: in no order; none where the picture is empty.
    """

    objects: tuple[SeenObject, ...]

    def __str__(self) -> str:
        counts = collections.Counter(seen.kind for seen in self.objects)
        return " and ".join(_name(number, *kind) for kind, number in counts.items()) or "nothing"

    def contradiction(self, caption: Caption) -> str:
        """What is seen that the caption does not say; empty where the scene is as it says.

        All objects that the caption names are there, and no other ones. "Above" holds where every
        centre of the first group is higher than every one of the second, and their mean distance
        downwards exceeds that sideways; "left of" likewise. So both cannot hold.

        Args:
            caption: of the grammar.
        """
        wanted = {group.kind: group.count for group in caption.groups}
        if collections.Counter(seen.kind for seen in self.objects) != wanted:
            return f"the picture shows {self}, not {caption}"
        if caption.relation and not self._stand(caption.groups, caption.relation):
            return f"the picture shows {self}, but not {caption}"
        return ""

    def mistakes(self, caption: Caption) -> tuple[str, ...]:
        """In what the scene is not as the caption says; nothing where it is.

        "colour": there is an object of a colour that the caption does not name; "shape": likewise;
        "binding": there is one whose colour and shape it names, but of different groups; "count":
        there are more or fewer objects, or all are of its kinds and in other numbers; "relation":
        all objects are right, and do not stand as it says.

        Args:
            caption: of the grammar.

        Returns:
            Some of `MISTAKES`, in their order.
        """
        wanted = {group.kind: group.count for group in caption.groups}
        seen = collections.Counter(seen.kind for seen in self.objects)
        colours, shapes = (set(named) for named in zip(*wanted, strict=True))
        others = seen.keys() - wanted
        is_right = seen == wanted
        found = {
            "count": len(self.objects) != caption.num_objects or not (others or is_right),
            "colour": any(colour not in colours for colour, _ in others),
            "shape": any(shape not in shapes for _, shape in others),
            "binding": any(colour in colours and shape in shapes for colour, shape in others),
            "relation": is_right
            and caption.relation is not None
            and not self._stand(caption.groups, caption.relation),
        }
        return tuple(name for name in MISTAKES if found[name])

    def _stand(self, groups: tuple[Group, ...], relation: Relation) -> bool:
        first, second = (
            np.array([(seen.down, seen.right) for seen in self.objects if seen.kind == group.kind])
            for group in groups
        )
        along = 0 if relation is Relation.ABOVE else 1
        step = second.mean(axis=0) - first.mean(axis=0)
        is_before = first[:, along].max() < second[:, along].min()
        return bool(is_before and step[along] > abs(step[1 - along]))


def _name(number: int, colour: Colour, shape: Shape) -> str:
    """A group in words; of numbers beyond the grammar as well."""
    if number <= MAX_COUNT:
        return str(Group(number, colour, shape))
    return f"{number} {colour.value} {shape.value}s"
